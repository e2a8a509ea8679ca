"""Measurements of the secure sum."""
