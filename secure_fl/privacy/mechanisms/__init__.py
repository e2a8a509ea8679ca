"""Example-level mechanisms, one file each, with its guarantee."""
