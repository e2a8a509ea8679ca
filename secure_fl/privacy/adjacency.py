"""Whose presence is hidden, and what "presence" means: the two words that every ε must be
said with.
"""

from __future__ import annotations

from enum import StrEnum


class PrivacyUnit(StrEnum):
    """What one neighbouring data set differs by. An ε for one unit says nothing of the other, and
    the two are never added.
    """

    EXAMPLE = "example"
    CLIENT = "client"


class Adjacency(StrEnum):
    """How neighbours differ. For a sum of vectors of norm at most C the sensitivity is C, C
    and 2C.
    """

    ADD_REMOVE = "add-remove"
    """One unit more or fewer; how many there are is secret."""
    ZERO_OUT = "zero-out"
    """One unit contributes zero; how many there are is public."""
    REPLACE_ONE = "replace-one"
    """One unit has other content; how many there are is public."""
