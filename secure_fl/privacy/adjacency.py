"""Whose presence is hidden, and what that means: the two words that every ε is said with."""

from __future__ import annotations

from enum import StrEnum


class PrivacyUnit(StrEnum):
    """What one neighbouring data set differs by. ε for one unit says nothing of the other."""

    EXAMPLE = "example"
    CLIENT = "client"


class Adjacency(StrEnum):
    """How neighbours differ. A sum of vectors of norm at most C has sensitivity C, C and 2C."""

    ADD_REMOVE = "add-remove"
    """One unit more or fewer; how many there are is secret."""
    ZERO_OUT = "zero-out"
    """One unit contributes zero; how many there are is public."""
    REPLACE_ONE = "replace-one"
    """One unit has other content; how many there are is public."""
