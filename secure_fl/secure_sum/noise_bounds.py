"""How far summed integer noise strays: the one tail bound that every margin is taken from."""

from __future__ import annotations

from bisect import bisect_left
from math import asinh, ceil, hypot, inf, log, log2

FAILURE_LOG2 = -40.0
"""Noise passes its margin in any of the fields of a sum with at most this probability, as log2."""


def noise_tail_log2(bound: float, deviation: float) -> float:
    """log2 of an upper bound on P(|N| ≥ `bound`) for integer noise N of the given deviation.

    Chernoff's bound for the symmetric Skellam law of variance μ:
    2·exp(−(x·asinh(x/μ) − √(μ²+x²) + μ)). Since cosh λ − 1 ≥ λ²/2 it also holds for every
    subgaussian N of that deviation: discrete Gaussians with parameter σ at most the deviation
    (Canonne, Kamath and Steinke 2020) and sums of independent ones. It lies below Bernstein's bound
    2·exp(−x²/(2μ + 2x/3)) for every x, since cosh λ − 1 ≤ e^λ − 1 − λ, from which that follows.
    """
    if deviation == 0:
        return -inf if bound > 0 else 0.0
    mean = deviation**2
    # √(μ²+x²) − μ, without the difference of two large numbers
    exponent = bound * asinh(bound / mean) - bound**2 / (hypot(mean, bound) + mean)
    return min(0.0, 1 - exponent / log(2))


def largest_noise(deviation: float, fields: int) -> int:
    """A magnitude that noise passes in none of so many fields, save with probability 2^-40.

    The smallest m with `fields`·P(|N| ≥ m + 1) ≤ 2^-40 by `noise_tail_log2`: a union bound, so
    fields need not be independent. The deviation is that of the noise in the sum, in grid steps.
    """
    allowed = FAILURE_LOG2 - log2(fields)
    most = ceil((1 - allowed) * (deviation + 1))  # by Bernstein's bound
    within = range(most)
    return bisect_left(within, True, key=lambda m: noise_tail_log2(m + 1, deviation) <= allowed)
