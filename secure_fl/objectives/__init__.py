"""Losses and their coupling, who owns which dimensions, and metrics of a representation."""
