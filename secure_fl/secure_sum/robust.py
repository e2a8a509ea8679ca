"""Against clients that lie within their clip: sums over groups, combined coordinate by coordinate
so that few bad groups cannot move much.

Under encryption nobody can check a client's vector. Groups of g clients are summed apart (a round
each, with a cohort each), and the groups' means are combined by median or trimmed mean. Source:
Yin, Chen, Ramchandran and Bartlett, ICML 2018 (median, trimmed mean).

Guarantee: with b bad groups of G, each coordinate of the median (2b < G) and of the trimmed mean (b
trimmed at each end) lies between the smallest and the largest mean of honest groups. A client
spoils its own group at most.
Assumes: groups are drawn after clients are fixed, from a seed no client chose.
Not covered: more bad groups than that; bias where honest groups differ. Secrecy is that of a group:
its sum is opened, so g is at least `fewest`, and client-level noise must be enough within a group,
since each is a release of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.graph import commitment


def draw_groups(names: Sequence[str], size: int, seed: bytes) -> tuple[tuple[str, ...], ...]:
    """Disjoint groups of at least `size`, equal at everyone who holds names and seed; the remainder
    is dealt over the groups. Raises SecureSumError: fewer names than one group needs, or a group of
    one.

    Args:
        names: clients of the round.
        size: g, members a group has at least.
        seed: public, and chosen by no client: such as the last round's view.
    """
    if size < 2 or len(names) < size:
        problem, remedy = "groups need two members or more", "at most the number of clients"
        raise SecureSumError(problem, "robust.size", (size, len(names)), remedy)
    base = commitment([seed, *(name.encode() for name in sorted(names))])
    order = sorted(names, key=lambda name: hashlib.sha256(base + name.encode()).digest())
    count = len(order) // size
    return tuple(tuple(sorted(order[group::count])) for group in range(count))


def combine_means(
    means: NDArray[np.float64], how: Literal["median", "trimmed_mean"], *, trim: int = 1
) -> NDArray[np.float64]:
    """One vector out of groups' means, each of which counts once, however many members or examples
    its group claims to have. Raises SecureSumError: no means, or `trim` that leaves none.

    Args:
        means: float64 `[G, P]`; `trimmed_mean` sorts it in place.
        how: `median` or `trimmed_mean`, coordinate by coordinate.
        trim: b, groups left out at each end by `trimmed_mean`.

    Returns:
        float64 `[P]`, in the unit of the means.
    """
    if trim < 0 or not len(means) or (how == "trimmed_mean" and 2 * trim >= len(means)):
        remedy = f"less than half of {len(means)} groups"
        raise SecureSumError("no group is left", "robust.trim", trim, remedy)
    if how == "median":
        return np.asarray(np.median(means, axis=0), np.float64)
    means.sort(axis=0)
    return np.asarray(means[trim : len(means) - trim].mean(axis=0), np.float64)
