"""Tails of the integer noise: what the codec takes its margins from."""

from __future__ import annotations

from math import asinh, hypot, log, log2, sqrt

_LN2 = log(2)


def noise_tail_log2(bound: float, deviation: float) -> float:
    """log2 of an upper bound on P(|N| ≥ `bound`) for integer noise N of the given deviation.

    Chernoff's bound for the symmetric Skellam of variance μ: 2·exp(−(x·asinh(x/μ) − √(μ²+x²) + μ)). Since cosh λ − 1 ≥ λ²/2 it also holds
    for every subgaussian N of that deviation: discrete Gaussians, and sums of independent ones.
    """
    if deviation == 0:
        return float("-inf") if bound > 0 else 0.0
    mean = deviation**2
    # √(μ²+x²) − μ, without the difference of two large numbers
    exponent = bound * asinh(bound / mean) - bound**2 / (hypot(mean, bound) + mean)
    return min(0.0, 1 - exponent / _LN2)


def noise_bound(deviation: float, fields: int, failure_log2: float) -> float:
    """The smallest x with `fields`·P(|N| ≥ x) ≤ 2^`failure_log2`; the union bound over all fields."""
    if deviation == 0:
        return 0.0
    target = failure_log2 - log2(fields)
    low, high = 0.0, deviation * sqrt(-2 * target * _LN2 + 4)
    while noise_tail_log2(high, deviation) > target:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if noise_tail_log2(middle, deviation) > target else (low, middle)
    return high
