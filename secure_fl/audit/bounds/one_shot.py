"""An estimate of ε from one run with random canaries (Andrew et al. 2023). It is no bound.

k canaries are random unit vectors; the score of each is its cosine with what was released. A canary
that was out has a cosine of law about N(0, 1/d) in d dimensions; those that were in get a normal
law by their mean and variance; ε is what tells the two laws apart at δ.
Source: Andrew, Kairouz, Oh, Oprea, McMahan and Suriyakumar, "One-shot empirical privacy estimation
for federated learning" (arXiv 2302.03098).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from secure_fl.audit.bounds.gaussian import smallest_epsilon, two_normals_delta
from secure_fl.audit.bounds.result import Bound, Vector, split_scores
from secure_fl.errors import AuditError

ASSUMES = ("scores on each side are normal", "the fitted laws are the true ones")


def cosines(released: ArrayLike, canaries: ArrayLike) -> Vector:
    """Cosine of each row of `canaries` with the released vector.

    Raises:
        AuditError: shapes that do not fit, or a vector of no length.
    """
    vector, rows = np.asarray(released, dtype=np.float64), np.asarray(canaries, dtype=np.float64)
    if vector.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(vector):
        remedy = "a vector of d numbers and canaries of d columns"
        raise AuditError.unshown("shapes do not fit", "canaries", remedy)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise AuditError.unshown("no length", "canaries", "vectors that are finite and not zero")
    return np.asarray(rows @ vector / lengths, dtype=np.float64)


def one_shot_estimate(
    scores: ArrayLike, included: ArrayLike, delta: float, dimension: int | None = None
) -> Bound:
    """An estimate of ε(δ), the larger of the two directions.

    **Guarantee**: none; it comes near the truth for the Gaussian mechanism as canaries and
    dimensions grow. **Assumes**: normal scores on both sides. **Not covered**: how far it is off.
    With both laws fitted it is too high nine times in ten (`bench/audit_bounds.py`), since tails
    magnify an error in either deviation; it refutes nothing.

    Args:
        scores: of every canary: cosines, or another score with `dimension` left out.
        included: what the coins were.
        delta: the ε is estimated at.
        dimension: d, for the law N(0, 1/d) of canaries that were out; without it, that law is
            fitted too.

    Raises:
        AuditError: scores and coins do not match, equal scores, or no probability.
    """
    inside, outside = split_scores(scores, included)
    there = (float(inside.mean()), float(inside.std(ddof=1)))
    not_there = (float(outside.mean()), float(outside.std(ddof=1)))
    if dimension is not None:
        not_there = (0.0, 1 / math.sqrt(dimension))
    if not (there[1] > 0 and not_there[1] > 0):
        raise AuditError("all scores are equal", "scores", 0, "score what was noised")
    epsilon = max(
        smallest_epsilon(lambda at: two_normals_delta(there, not_there, at), delta),
        smallest_epsilon(lambda at: two_normals_delta(not_there, there, at), delta),
    )
    details = {"mean_in": there[0], "deviation_in": there[1]}
    details |= {"mean_out": not_there[0], "deviation_out": not_there[1]}
    return Bound("one shot", epsilon, delta, 0.0, ASSUMES, "estimate", details)
