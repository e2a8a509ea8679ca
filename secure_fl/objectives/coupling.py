"""How an example's loss depends on others of its batch, which decides what mechanism is valid."""

from __future__ import annotations

from enum import IntEnum


class Coupling(IntEnum):
    """Clipping an example's gradient bounds its influence under `PER_EXAMPLE` only."""

    PER_EXAMPLE = 0
    """The loss is a mean of terms, each of one example."""
    STATISTIC = 1
    """Examples meet only in a small statistic, whose private release frees the rest."""
    GROUP = 2
    """Examples meet within disjoint groups."""
    BATCH = 3
    """Every example's term may depend on every other example."""
