"""Which rounds of a run are played again: a fault may be in a late one alone."""

from __future__ import annotations

import numpy as np


def spread(rounds: int, most: int, seed: int, *, length: int = 1) -> list[int]:
    """Where stretches of so many rounds begin, ascending and over the whole run: all of them, or
    the first, the last, and as many others as are allowed, drawn by the seed.

    Args:
        rounds: that the run has, at least 1.
        most: stretches, at least 2.
        seed: of the audit.
        length: of a stretch; the last one ends with the run, where that is as long.
    """
    last = max(0, rounds - length)
    there = [*range(0, last, length), last]
    if len(there) <= most:
        return there
    between = np.random.default_rng(seed).choice(there[1:-1], most - 2, replace=False)
    return [there[0], *sorted(map(int, between)), last]
