"""The `secure-fl` command, one file a command group. Heavy imports happen inside commands, so help
is instant.
"""
