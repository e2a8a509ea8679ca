"""Losses on the processor that never hold an N×N matrix: symmetric tiles, each computed once and
used for its rows and columns.
"""
