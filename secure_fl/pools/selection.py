"""A client's choice among pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def best_pool(losses: Sequence[float], accuracies: Sequence[float | None], by: Literal["loss", "accuracy"]) -> int:
    """Index of the lowest loss, or of the highest accuracy with ties broken by loss; equal pools go to the first.

    A loss that is not a number never wins against one that is.
    """
    ranked = [loss if loss == loss else float("inf") for loss in losses]
    if by == "loss":
        return min(range(len(ranked)), key=ranked.__getitem__)
    return min(range(len(ranked)), key=lambda k: (-(accuracies[k] or 0.0), ranked[k]))
