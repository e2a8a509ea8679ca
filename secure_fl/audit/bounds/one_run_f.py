"""One run's guesses against a whole trade-off function (Mahloujifar, Melis and Chaudhuri 2024).

A mechanism is f-DP if no test of "in" against "out" at level a has power above f̄(a) = 1 − f(a).
With v of r guesses about m fair coins right, and s the error probability, start from ρ = s·v/m and
h = s·(r − v)/m and go down i = v − 1, ..., 0:

    h' = max(h, f̄⁻¹(ρ)),   ρ ← ρ + i/(r − i)·(h' − h),   h ← h'.

f is refuted if ρ + h > r/m. Two families are tried: Gaussian trade-offs, of which the largest
refuted μ is turned into ε(δ), and those of (ε, δ)-DP themselves, which need no law of the noise.
Source: "Auditing f-differential privacy in one run" (arXiv 2410.22235), its procedure for
guesses that may be passed over, of two answers; jax-privacy computes the Gaussian family alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from secure_fl.audit.bounds.gaussian import epsilon_of_gaussian
from secure_fl.audit.bounds.guesses import Outcome
from secure_fl.audit.bounds.one_run import ASSUMES
from secure_fl.audit.bounds.result import Bound, largest, probability
from secure_fl.errors import AuditError

Inverse = Callable[[float], float]
"""f̄⁻¹: the least level at which some test has this power."""


def gaussian_inverse(mu: float) -> Inverse:
    """f̄⁻¹ of two normal laws μ deviations apart: Φ(Φ⁻¹(x) − μ)."""
    return lambda power: float(ndtr(ndtri(power) - mu)) if power < 1 else 1.0


def approximate_inverse(epsilon: float, delta: float) -> Inverse:
    """f̄⁻¹ of (ε, δ)-DP, from f̄(a) = min(e^ε·a + δ, 1 − e^(−ε)·(1 − δ − a))."""
    shrink = math.exp(-epsilon)

    def inverse(power: float) -> float:
        if power >= 1:
            return 1.0 - delta
        return max(0.0, (power - delta) * shrink, 1 - delta - (1 - power) / shrink)

    return inverse


def refuted(inverse: Inverse, outcome: Outcome, error: float) -> bool:
    """Whether the outcome refutes the trade-off at this error probability."""
    canaries, guesses, right = outcome.canaries, outcome.guesses, outcome.right
    power, level = error * right / canaries, error * (guesses - right) / canaries
    for i in range(right - 1, -1, -1):
        new = max(level, inverse(power))
        if new == level:
            break  # nothing changes any more
        power = min(power + i / (guesses - i) * (new - level), 1.0)
        level = new
    return power + level > guesses / canaries


def one_run_f_bound(
    outcomes: Sequence[Outcome],
    delta: float,
    confidence: float = 0.95,
    family: Literal["gaussian", "approximate"] = "gaussian",
) -> Bound:
    """A lower bound on ε(δ) from one run's guesses, by trade-off functions.

    **Guarantee**: with probability at least `confidence` no refuted trade-off is the mechanism's;
    each of k outcomes is held to a k-th of the error probability.
    **Assumes**: as `one_run_bound`; and with `gaussian`, that the mechanism's trade-off is a
    Gaussian one, as that of noised sums with everybody in; sampled sums are not. `approximate` does
    without. **Not covered**: a mechanism whose trade-off crosses the Gaussian ones.

    Args:
        outcomes: of the same coins, at several numbers of guesses; see `guesses.guessed`.
        delta: of the claim.
        confidence: of the bound.
        family: the trade-offs that are tried.

    Raises:
        AuditError: no outcome, an unknown family, or δ or the confidence is no probability.
    """
    error = 1 - probability(confidence, "confidence")
    probability(delta, "delta")
    if not outcomes:
        raise AuditError("there is none", "outcomes", 0, "guess at least once")
    if family not in ("gaussian", "approximate"):
        raise AuditError("unknown trade-offs", "family", family, "gaussian or approximate")
    make = gaussian_inverse if family == "gaussian" else partial(approximate_inverse, delta=delta)
    share = error / len(outcomes)
    found = [largest(lambda at, each=each: refuted(make(at), each, share)) for each in outcomes]
    best = int(np.argmax(found))
    details: dict[str, float] = {"guesses": outcomes[best].guesses, "right": outcomes[best].right}
    if family == "approximate":
        return Bound("one run, f-DP", found[best], delta, confidence, ASSUMES, details=details)
    epsilon = epsilon_of_gaussian(found[best], delta)
    assumes = (*ASSUMES, "the trade-off is that of the Gaussian mechanism")
    details["mu"] = found[best]
    return Bound("one run, Gaussian DP", epsilon, delta, confidence, assumes, details=details)
