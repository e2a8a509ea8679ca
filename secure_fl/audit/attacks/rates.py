"""How well scores, or guesses, tell two kinds apart: rates, areas and what a claim allows, each
with an interval.

Sources: Clopper and Pearson, Biometrika 26 (1934); DeLong, DeLong and Clarke-Pearson, Biometrics 44
(1988), for the area under the curve; Kairouz, Oh and Viswanath, "The composition theorem for
differential privacy" (arXiv 1311.0776), for what (ε, δ) allows a test.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri
from scipy.stats import rankdata

from secure_fl.audit.bounds.result import probability
from secure_fl.errors import AuditError

Scores = NDArray[np.float64]


class Interval(NamedTuple):
    """A value that was measured, and the interval around it."""

    value: float
    low: float
    high: float


def share(right: int, trials: int, confidence: float = 0.95) -> Interval:
    """`right` of `trials` as a share, with its exact interval (Clopper and Pearson); one side of it
    is wrong with probability (1 − confidence)/2 at most.

    Raises:
        AuditError: not 0 ≤ right ≤ trials, no trial, or a confidence that is no probability.
    """
    tail = (1 - probability(confidence, "confidence")) / 2
    if not 0 <= right <= trials or trials < 1:
        raise AuditError("no such counts", "share", (right, trials), "right ≤ trials")
    low = float(betaincinv(right, trials - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, trials - right, 1 - tail)) if right < trials else 1.0
    return Interval(right / trials, low, high)


def lowest_share(right: int, trials: int, error: float) -> float:
    """A share that the true one is below with probability `error` at most, whatever it is. Raises
    AuditError: as `share`.
    """
    return share(right, trials, 1 - 2 * error).low


def area(inside: ArrayLike, outside: ArrayLike, confidence: float = 0.95) -> Interval:
    """The area under the curve of true against false positives: the probability that a member's
    score is the higher one, ties counting half; with DeLong's interval.

    Where all scores on one side are higher, that variance is 0: the interval is then the one of as
    many trials as the smaller side has scores.

    **Assumes**: scores are independent. Those of examples that one model was trained on are nearly
    so; no verdict rests on this interval.

    Raises:
        AuditError: fewer than two scores on a side, or one that is not finite.
    """
    members, others = _scores(inside), _scores(outside)
    m, n = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))
    below = (ranks[:m] - rankdata(members)) / n  # of each member: share of others below it
    above = 1 - (ranks[m:] - rankdata(others)) / m
    value = float(below.mean())
    deviation = math.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n)
    if deviation == 0:
        exact = share(round(value * min(m, n)), min(m, n), confidence)
        return Interval(value, min(exact.low, value), max(exact.high, value))
    width = float(ndtri((1 + confidence) / 2)) * deviation
    return Interval(value, max(0.0, value - width), min(1.0, value + width))


def true_positives(
    inside: ArrayLike, outside: ArrayLike, false_positives: float, confidence: float = 0.95
) -> Interval:
    """The largest share of members whose score is above a threshold that at most this share of the
    others is above; the interval is the exact one, given that threshold.

    Raises:
        AuditError: as `area`, or a rate that is no probability.
    """
    members, others = _scores(inside), np.sort(_scores(outside))[::-1]
    allowed = int(probability(false_positives, "false positives") * len(others))
    return share(int((members > others[allowed]).sum()), len(members), confidence)


def allowed_true_positives(epsilon: float, delta: float, false_positives: float) -> float:
    """The largest true-positive rate of any test of presence under (ε, δ)-DP, at this rate of false
    positives: min(e^ε·a + δ, 1 − e^(−ε)·(1 − δ − a)).
    """
    if epsilon > 700:
        return 1.0
    other = 1 - math.exp(-epsilon) * (1 - delta - false_positives)
    return min(1.0, math.exp(epsilon) * false_positives + delta, other)


def allowed_guesses(epsilon: float, delta: float, choices: int) -> float:
    """The largest share of right guesses at one of `choices` that were equally likely, under
    (ε, δ)-DP between any two of them: e^ε/(e^ε + K − 1) + δ.

    For the best guess p_k at each k, Σ_k p_k(guess k | k) is to be bounded: p(guess k | k) ≤
    e^ε·p(guess k | j) + δ for each of the K − 1 others j; added up over k and j,
    (K − 1)·S ≤ e^ε·(K − S) + K(K − 1)·δ, so S/K ≤ (e^ε + (K − 1)·δ)/(e^ε + K − 1).
    """
    if epsilon > 700:
        return 1.0
    grown, others = math.exp(epsilon), choices - 1
    return min(1.0, (grown + others * delta) / (grown + others))


def _scores(values: ArrayLike) -> Scores:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        remedy = "two finite scores or more of members, and of others"
        raise AuditError.unshown("not scores", "scores", remedy)
    return found
