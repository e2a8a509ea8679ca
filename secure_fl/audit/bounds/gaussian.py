"""The Gaussian mechanism's own curve: δ of ε, and back, for one or two deviations.

μ is the distance between the two means in deviations of the noise, for sums of vectors of norm at
most C with noise of deviation σ·C: μ = 1/σ under zero-out and add-remove, 2/σ under replace-one.
Sources: Balle and Wang (2018), theorem 8, for equal deviations: δ(ε) = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 −
ε/μ); Dong, Roth and Su, "Gaussian differential privacy" (2022), corollary 1 (2.13 in arXiv
1905.02383), says the same of every mechanism whose trade-off is at least Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import log_ndtr, ndtr

from secure_fl.audit.bounds.result import probability

_STEPS, _LARGEST = 200, 1e6


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ(ε) of two normal laws of deviation 1 whose means are `mu` ≥ 0 apart."""
    if mu == 0:
        return 0.0
    above = float(log_ndtr(mu / 2 - epsilon / mu))
    below = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(above) * -math.expm1(min(below - above, 0.0))


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """The smallest ε ≥ 0 at which the Gaussian mechanism of this μ is (ε, δ)-DP.

    Raises:
        AuditError: δ outside (0, 1).
    """
    return smallest_epsilon(lambda epsilon: gaussian_delta(mu, epsilon), delta)


def smallest_epsilon(delta_of: Callable[[float], float], delta: float) -> float:
    """The smallest ε ≥ 0 with δ(ε) ≤ `delta`, for a curve that falls; infinite beyond 1e6.

    Raises:
        AuditError: δ outside (0, 1).
    """
    probability(delta, "delta")
    if delta_of(0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_of(high) > delta:
        high *= 2
        if high > _LARGEST:
            return math.inf
    low = 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if delta_of(middle) <= delta else (middle, high)
    return high


def two_normals_delta(
    one: tuple[float, float], other: tuple[float, float], epsilon: float
) -> float:
    """δ(ε) = E_P[(1 − e^(ε − L))₊] of P against Q, two normal laws as (mean, deviation).

    log P/Q is a quadratic in x: where it exceeds ε is found from its roots, exactly.
    """
    (mean_p, deviation_p), (mean_q, deviation_q) = one, other
    square = 0.5 * (deviation_q**-2 - deviation_p**-2)
    linear = mean_p / deviation_p**2 - mean_q / deviation_q**2
    constant = 0.5 * ((mean_q / deviation_q) ** 2 - (mean_p / deviation_p) ** 2)
    constant += math.log(deviation_q / deviation_p) - epsilon

    def gain(low: float, high: float) -> float:
        return _mass(one, low, high) - math.exp(min(epsilon, 700.0)) * _mass(other, low, high)

    if abs(square) < 1e-12 * max(deviation_p, deviation_q) ** -2:
        if linear == 0:
            return max(gain(-math.inf, math.inf), 0.0)
        root = -constant / linear
        return max(gain(root, math.inf) if linear > 0 else gain(-math.inf, root), 0.0)
    inner = linear**2 - 4 * square * constant
    if inner <= 0:
        return max(gain(-math.inf, math.inf), 0.0) if square > 0 else 0.0
    root = -0.5 * (linear + math.copysign(math.sqrt(inner), linear))
    low, high = sorted((root / square, constant / root))
    outside = gain(-math.inf, low) + gain(high, math.inf)
    return max(outside if square > 0 else gain(low, high), 0.0)


def _mass(law: tuple[float, float], low: float, high: float) -> float:
    """P(low < X ≤ high), from the tail in which it is not rounded away."""
    mean, deviation = law
    a, b = (low - mean) / deviation, (high - mean) / deviation
    return float(ndtr(-a) - ndtr(-b)) if a > 0 else float(ndtr(b) - ndtr(a))
