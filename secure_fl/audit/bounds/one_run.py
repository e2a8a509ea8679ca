"""ε refuted by guesses about the coins of one run (Steinke, Nasr and Jagielski 2023).

m canaries are in or out by fair coins; r of the coins are guessed from what was released, the rest
are passed over; v guesses are right. Under (ε, δ)-DP, with q = e^ε/(1 + e^ε) and W ~ Bin(r, q),

    P(at least v right) ≤ p(ε) = β + 2mδ·α,
    β = P(W ≥ v),   α = max over 1 ≤ i ≤ v of (P(W ≥ v − i) − β)/i.

The bound is the largest ε with p(ε) at most the error probability.
Source: "Privacy auditing with one (1) training run" (arXiv 2305.08846), its appendix D, which
prints p(ε) as a program; jax-privacy computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtrc, expit

from secure_fl.audit.bounds.guesses import Outcome
from secure_fl.audit.bounds.result import Bound, largest, probability
from secure_fl.errors import AuditError

ASSUMES = ("each canary's presence is one step of the claim's adjacency",)


def p_value(outcome: Outcome, epsilon: float, delta: float) -> float:
    """p(ε) of the module's text: an upper bound on the probability of as many right guesses."""
    q, right = float(expit(epsilon)), outcome.right
    beta = _at_least(np.array([right]), outcome.guesses, q)[0]
    if delta == 0 or right == 0:
        return float(beta)
    i = np.arange(1, right + 1)
    alpha = float(np.max((_at_least(right - i, outcome.guesses, q) - beta) / i))
    return min(float(beta) + 2 * outcome.canaries * delta * alpha, 1.0)


def _at_least(least: np.ndarray, trials: int, q: float) -> np.ndarray:
    """P(Bin(trials, q) ≥ least)."""
    return np.asarray(bdtrc(least - 1, trials, q))


def one_run_bound(outcomes: Sequence[Outcome], delta: float, confidence: float = 0.95) -> Bound:
    """A lower bound on ε from one run's guesses.

    **Guarantee**: with probability at least `confidence` the true ε(δ) is not below it. Each of k
    outcomes is held to a k-th of the error probability, so their maximum is valid.
    **Assumes**: coins fair and independent; guesses made from the release and public facts alone;
    the numbers of guesses fixed before. Nothing about the noise's law, nor that canaries do not
    disturb each other.
    **Not covered**: it stays well below ε where many canaries share one release (1.5 of 4.4 with
    1,000 canaries): a low value says little.

    Args:
        outcomes: of the same coins, at several numbers of guesses; see `guesses.guessed`.
        delta: of the claim; 0 for pure ε.
        confidence: of the bound.

    Raises:
        AuditError: no outcome, or δ or the confidence is no probability.
    """
    error = 1 - probability(confidence, "confidence")
    if delta != 0:
        probability(delta, "delta")
    if not outcomes:
        raise AuditError("there is none", "outcomes", 0, "guess at least once")
    share = error / len(outcomes)
    found = [
        largest(lambda epsilon, each=each: p_value(each, epsilon, delta) <= share)
        for each in outcomes
    ]
    best = int(np.argmax(found))
    details = {
        "canaries": outcomes[best].canaries,
        "guesses": outcomes[best].guesses,
        "right": outcomes[best].right,
    }
    return Bound("one run", found[best], delta, confidence, ASSUMES, details=details)
