"""How one example's loss depends on the other examples of its batch: what decides which private
mechanism is valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Coupling(IntEnum):
    """Ordered from none to full; clipping each example's gradient bounds its influence under
    `PER_EXAMPLE` only.
    """

    PER_EXAMPLE = 0
    """The loss is a mean of terms, each of one example."""
    STATISTIC = 1
    """Examples meet only in a small statistic, such as a second moment; releasing that privately
    frees the rest.
    """
    GROUP = 2
    """Examples meet within disjoint groups."""
    BATCH = 3
    """Every example's term may depend on every other example."""


def widest(couplings: Iterable[Coupling]) -> Coupling:
    """The coupling of a sum of terms."""
    return max(couplings, default=Coupling.PER_EXAMPLE)
