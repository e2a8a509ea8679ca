"""The `secure-fl` command, a file a group; imports wait for commands, so help is instant."""
