"""A client's choice among pools, and what it takes to leave the pool of its found group."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Literal

from torch import Tensor

_SURE = 2.0
"""Standard errors by which another pool must be better: fewer are passed by chance."""


def best_pool(
    losses: Sequence[float], accuracies: Sequence[float | None], by: Literal["loss", "accuracy"]
) -> int:
    """Index of the lowest loss, or of the highest accuracy with ties broken by loss; equal pools go
    to the first.

    A loss that is not a number never wins against one that is.
    """
    ranked = [loss if loss == loss else float("inf") for loss in losses]
    if by == "loss":
        return min(range(len(ranked)), key=ranked.__getitem__)
    return min(range(len(ranked)), key=lambda k: (-(accuracies[k] or 0.0), ranked[k]))


def clearly_lower(other: Tensor, own: Tensor, share: float) -> bool:
    """Whether another pool serves a client so much better than the pool of its found group that the
    client should leave it.

    Young heads differ by how much they were trained, not by whom they suit: the pool of more or
    easier examples is ahead for everybody at first, and who follows the lowest loss then undoes the
    groups. That lead is a small part of what is left to learn. Where the group is the wrong one,
    the other pool's lead is as small at first and grows with training. So both must hold: the mean
    is lower by `share` of the own pool's (a part of what is left to learn, whatever its scale), and
    by more than two standard errors of the differences example by example.

    Args:
        other, own: losses, or errors, of the same examples (or batches) under the two pools, `[N]`.
        share: 0.1 asks for a mean that is lower by a tenth.
    """
    lead, mean = (own - other).double(), float(own.double().mean())
    if not isfinite(mean):
        return isfinite(float(other.double().mean()))
    enough = float(lead.mean()) > share * abs(mean)
    return enough and (
        len(lead) < 2 or float(lead.mean()) > _SURE * float(lead.std()) / sqrt(len(lead))
    )
