"""How far canaries move a release, in deviations of its noise, with the standard error; and a test
of the deviation and the shift that were claimed.

A bound on ε sees halved noise late, because it is far below ε. The noise itself is measured to a
few per cent by a thousand scores. With n = n₁ + n₀ scores, n₁ of them in, normal and of one
deviation:

    shift D = mean in − mean out,   S² = pooled variance, of n − 2 degrees of freedom,
    μ̂ = D/S,   se(μ̂)² ≈ 1/n₁ + 1/n₀ + μ̂²/(2(n − 2)).

(n − 2)·S²/deviation² is χ² of n − 2 degrees, and μ̂/√(1/n₁ + 1/n₀) is a non-central t whose
parameter is μ/√(1/n₁ + 1/n₀) (Student; Johnson and Welch 1940). So all probabilities below are
exact for normal noise, at any number of canaries.

`details` of the result: `shift`, `deviation`, `mu` = shift/deviation, its standard error `mu_error`
and `mu_low`, at most the true μ with the stated confidence, whose ε(δ) is the bound. With a claim
also `mu_claimed`, `deviation_claimed`, `p_deviation` and `p_mu`, the probabilities of so little
noise and of so large a μ̂ if the claim is true, and `alarm`: 1 where one of these is at most half of
the false-alarm rate.

**Assumes**: scores independent, normal and of one deviation: vectors that do not overlap, Gaussian
noise, everybody in every sum. Where units are sampled, scores of canaries that are in scatter more,
and the test gets conservative.
**Not covered**: noise of the right variance and another law, or that repeats; other leaks than the
canaries' own sum. Data that contribute to the scores widen them and hide missing noise: take
directions without data.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaln, log_ndtr

from secure_fl.audit.bounds.gaussian import epsilon_of_gaussian
from secure_fl.audit.bounds.result import Bound, largest, probability, split_scores
from secure_fl.errors import AuditError

ASSUMES = (
    "the trade-off is that of the Gaussian mechanism",
    "scores are independent and normal, those in and those out of one deviation",
)


class Spread(NamedTuple):
    """What scores show: the shift, the deviation S, n − 2, and 1/n₁ + 1/n₀."""

    shift: float
    deviation: float
    freedom: int
    inverse: float

    @property
    def mu(self) -> float:
        """μ̂."""
        return self.shift / self.deviation


def noise_shift_bound(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    confidence: float = 0.95,
    *,
    claimed: tuple[float, float] | None = None,
    false_alarm: float = 1e-3,
) -> Bound:
    """The shift in noise deviations, a lower bound on it and so on ε(δ), and a test of a claim.

    `details` are those of the module's text.

    **Guarantee**: the bound is above the true ε with probability at most 1 − `confidence`; with
    noise as wide as claimed or wider, and a shift of at most as many deviations as claimed, the
    alarm is false with probability at most `false_alarm`. Both are exact.
    **Assumes**, **Not covered**: as the module says.

    Args:
        scores: of every canary, in the units of the claim.
        included: what the coins were.
        delta: the bound is for.
        confidence: of the bound.
        claimed: by how much a canary's presence moves its score, and the deviation of the noise in
            a score: σ·C, times √T over T sums.
        false_alarm: of the test.

    Raises:
        AuditError: scores and coins do not match or have no spread, or a value out of its range.
    """
    error, alarm = 1 - probability(confidence, "confidence"), probability(false_alarm, "alarm")
    seen = spread_of(scores, included)
    low = largest(lambda at: _ratio_p(seen, at) <= error)
    details = {"shift": seen.shift, "deviation": seen.deviation, "mu": seen.mu, "mu_low": low}
    details["mu_error"] = math.sqrt(seen.inverse + seen.mu**2 / (2 * seen.freedom))
    if claimed is not None:
        details |= _tested(seen, *claimed, alarm)
    epsilon = epsilon_of_gaussian(low, delta) if math.isfinite(low) else math.inf
    return Bound("noise shift", epsilon, delta, confidence, ASSUMES, details=details)


def spread_of(scores: ArrayLike, included: ArrayLike) -> Spread:
    """Shift and pooled deviation. Raises AuditError: as `noise_shift_bound`."""
    inside, outside = split_scores(scores, included)
    freedom = len(inside) + len(outside) - 2
    squares = float(inside.var() * len(inside) + outside.var() * len(outside))
    if squares == 0:
        raise AuditError("all scores are equal", "scores", 0, "score what was noised")
    inverse = 1 / len(inside) + 1 / len(outside)
    shift = float(inside.mean() - outside.mean())
    return Spread(shift, math.sqrt(squares / freedom), freedom, inverse)


def _tested(seen: Spread, shift: float, deviation: float, false_alarm: float) -> dict[str, float]:
    """The claim, both probabilities, and whether to alarm."""
    if not (shift >= 0 and deviation > 0):
        raise AuditError("not a claim", "claimed", (shift, deviation), "a deviation above 0")
    ratio = (seen.deviation / deviation) ** 2
    p_deviation = float(gammainc(seen.freedom / 2, seen.freedom * ratio / 2))
    p_mu = _ratio_p(seen, shift / deviation)
    alarm = float(min(p_deviation, p_mu) <= false_alarm / 2)
    claim = {"mu_claimed": shift / deviation, "deviation_claimed": deviation}
    return {**claim, "p_deviation": p_deviation, "p_mu": p_mu, "alarm": alarm}


def _ratio_p(seen: Spread, mu: float) -> float:
    """P(as large a μ̂) at a true μ: of a non-central t, by Φ averaged over the law of S.

    S = χ/√freedom at a deviation of 1; given S, μ̂ is as large where a normal variable is at least
    (μ̂·S − μ)/√inverse.
    """
    freedom, width = seen.freedom, 12 / math.sqrt(2 * seen.freedom)
    s = np.linspace(max(1 - width, 0.0), 1 + width, 802)[1:]
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    log_density += math.log(2) + freedom / 2 * math.log(freedom / 2) - gammaln(freedom / 2)
    above = log_ndtr((mu - seen.mu * s) / math.sqrt(seen.inverse))
    return min(float(np.exp(log_density + above).sum() * (s[1] - s[0])), 1.0)
