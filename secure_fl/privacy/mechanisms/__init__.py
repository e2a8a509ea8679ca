"""Example-level mechanisms: one file each, with its guarantee, what that assumes and what it does
not cover.
"""
