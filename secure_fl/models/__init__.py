"""Encoders, heads, and models as flat vectors."""
