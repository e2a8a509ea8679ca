"""A run in one process: what it begins with, how it goes on longer, what it ends with."""
