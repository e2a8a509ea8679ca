"""Mechanisms broken on purpose, each in this process alone, to see that a check finds it."""
