"""Checks a folder against itself: `check` is the whole of it, the others its parts."""
