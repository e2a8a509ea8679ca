"""ε of a Gaussian trade-off, from the two error rates of a threshold with exact intervals.

If the trade-off is μ-Gaussian, every threshold has μ ≥ Φ⁻¹(1 − FPR) − Φ⁻¹(FNR). Both rates are
replaced by upper limits that hold together. The thresholds are order statistics of the scores that
were out, at ranks fixed beforehand: above the k-th largest of n out scores lies a share of that law
which is Beta(k, n + 1 − k) or smaller; and given that threshold, which owes nothing to the scores
that were in, the number of those below it is binomial (Clopper and Pearson 1934).
Sources: the μ of a threshold is that of Nasr et al., "Tight auditing of differentially private
machine learning" (arXiv 2302.07956), and equation 6 of Dong, Roth and Su (arXiv 1905.02383).
jax-privacy 2.0.0 takes |μ|, which reports too much; a negative μ is no evidence, here as in its
later source.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtri

from secure_fl.audit.bounds.gaussian import epsilon_of_gaussian
from secure_fl.audit.bounds.result import Bound, Vector, probability, split_scores

ASSUMES = (
    "the trade-off is that of the Gaussian mechanism",
    "scores of different canaries are independent, those on one side of one law",
)
_TRIED = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])
"""Shares of the out scores above a threshold."""


def gaussian_shift_bound(
    scores: ArrayLike, included: ArrayLike, delta: float, confidence: float = 0.95
) -> Bound:
    """A lower bound on ε(δ), by a lower bound on μ.

    **Guarantee**: with probability at least `confidence` the μ of a Gaussian trade-off is not below
    `details["mu"]`, nor its ε(δ) below the bound: all limits hold together, each at its share of
    the error probability.
    **Assumes**: the trade-off is Gaussian, and canaries' scores are independent: so it is for
    vectors that do not overlap, with noise of independent coordinates.
    **Not covered**: other trade-offs, where it may exceed the true ε; `one_run_bound` fits those.

    Args:
        scores: of every canary; higher means rather in.
        included: what the coins were.
        delta: of the claim.
        confidence: of the bound.

    Raises:
        AuditError: scores and coins do not match, or no probability.
    """
    error = 1 - probability(confidence, "confidence")
    probability(delta, "delta")
    inside, outside = split_scores(scores, included)
    ranks = np.unique(np.ceil(_TRIED * len(outside))).astype(int)
    share = error / (2 * len(ranks))
    thresholds = np.sort(outside)[::-1][ranks - 1]
    missed = np.searchsorted(np.sort(inside), thresholds, side="right")
    false = np.asarray(betaincinv(ranks, len(outside) + 1 - ranks, 1 - share))
    shifts = ndtri(1 - false) - ndtri(at_most(missed, len(inside), share))
    best = int(np.argmax(shifts))
    mu = max(float(shifts[best]), 0.0)
    details = {"mu": mu, "threshold": float(thresholds[best]), "false": int(ranks[best]) - 1}
    details |= {"missed": int(missed[best]), "in": len(inside), "out": len(outside)}
    epsilon = epsilon_of_gaussian(mu, delta)
    return Bound("Gaussian shift", epsilon, delta, confidence, ASSUMES, details=details)


def at_most(successes: ArrayLike, trials: int, error: float) -> Vector:
    """The Clopper–Pearson upper limit: the p at which as few successes have probability `error`."""
    k = np.asarray(successes)
    below = np.minimum(k, trials - 1)
    return np.where(k < trials, betaincinv(below + 1, trials - below, 1 - error), 1.0)
