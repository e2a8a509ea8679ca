"""What a method says of ε, with what it assumes, and the checks that all methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator, WithJsonSchema

from secure_fl.errors import AuditError
from secure_fl.records import Record

Vector = NDArray[np.float64]
Unbounded = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""A number that may be infinite: a file says null then, since JSON has no infinity."""


@dataclass(frozen=True)
class Bound(Record):
    """What one method says of ε.

    Attributes:
        method: its name.
        epsilon: the value; infinite where every finite ε is refuted.
        delta: the δ that it goes with.
        confidence: how likely, at least, a bound is not above the true ε; 0 for an estimate.
        assumptions: what has to hold for that, beyond what the game itself provides.
        kind: a `bound` has a proof under its assumptions; an `estimate` has none.
        details: further figures of the method.

    **Guarantee**: with `kind` bound, and where the assumptions hold, a mechanism whose true ε(δ) is
    below `epsilon` gives such a value with probability at most 1 − `confidence`.
    **Assumes**: coins that were fair, independent and unknown to whoever released and scored.
    **Not covered**: a low bound is no evidence of privacy. Several bounds of one audit hold one by
    one: that all hold at once has the sum of their error probabilities.
    """

    method: str
    epsilon: Unbounded
    delta: float
    confidence: float
    assumptions: tuple[str, ...]
    kind: Literal["bound", "estimate"] = "bound"
    details: Mapping[str, Unbounded] = field(default_factory=dict)

    def refutes(self, claim: float) -> bool:
        """Whether this is a bound, and above a claimed ε at the same δ."""
        return self.kind == "bound" and self.epsilon > claim


def probability(value: float, name: str) -> float:
    """The value, if it is within (0, 1). Raises AuditError: it is not."""
    if isinstance(value, bool) or not 0 < value < 1:
        raise AuditError("not a probability", name, value, "a number within (0, 1)")
    return float(value)


def split_scores(scores: ArrayLike, included: ArrayLike) -> tuple[Vector, Vector]:
    """Scores of canaries that were in, and of those that were not.

    Raises:
        AuditError: not one finite score and one coin a canary, or fewer than two on a side.
    """
    values, coins = np.asarray(scores, dtype=np.float64), np.asarray(included)
    if values.ndim != 1 or coins.shape != values.shape or coins.dtype != np.bool_:
        remedy = "one score and one truth value for each canary"
        raise AuditError.unshown("scores and coins do not match", "included", remedy)
    if not np.isfinite(values).all():
        raise AuditError.unshown("not finite", "scores", "score a release that is finite")
    if min(coins.sum(), (~coins).sum()) < 2:
        remedy = "toss fair coins for hundreds of canaries"
        raise AuditError("too few on one side", "included", int(coins.sum()), remedy)
    return values[coins], values[~coins]


def largest(refuted: object, start: float = 1.0, most: float = 256.0) -> float:
    """The largest value in [0, most] that is refuted; 0 if none is, infinity if all are.

    Args:
        refuted: value -> whether it is refuted; once it is not, no larger value is.
    """
    assert callable(refuted)
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, start
    while refuted(high):
        low, high = high, 2 * high
        if high > most:
            return math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
