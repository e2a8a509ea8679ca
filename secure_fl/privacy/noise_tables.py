"""Tables from which integers symmetric about 0 are drawn, built in exact integer arithmetic.

Two steps. `skellam_weights` and `gaussian_weights` give integers proportional to P(0), P(1), …,
P(K), with K so large that P(|X| > K) ≤ 2^-100. `masses` rounds the law of |X| to multiples of
2^-127, and `alias_table` spreads those over 2^b equally likely columns of at most two magnitudes
each (Walker 1977, Vose 1991), so that a draw looks up one column whatever comes out.

Errors in total variation: the cut 2^-100, the weights 2^-127, the rounding (K + 1)·2^-127 ≤ 2^-107;
the alias table is exact. In all less than `TOTAL_VARIATION` = 2^-99. Holds for K < 2^20.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from math import asinh, log, sqrt

import numpy as np
from numpy.typing import NDArray

TOTAL_VARIATION = 2.0**-99
BITS = 127
"""Two 64-bit words less the bit of the sign: what a draw can spend on a magnitude."""
_CUT = 101.5 * log(2)
"""The mass above K is at most exp(-_CUT): 2^-101 a side, and half a bit for rounding."""
_POINT = 192
"""Bits after the binary point of a weight."""
_DIGITS = 90
"""Decimal digits of exp(): 2^-298, far beyond the one rounding at `_POINT` bits that follows."""


@dataclass(frozen=True, eq=False, repr=False)
class AliasTable:
    """2^b columns. A fraction below `high`:`low` keeps the column's number as magnitude, another
    takes `alias`.

    `high` `[2^b]` is compared with the 63 − b bits that a first word has left, `low` `[2^b]` with a
    second word where those are equal.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    alias: NDArray[np.int64]


def skellam_weights(variance: Fraction) -> list[int]:
    """Integers proportional to Skellam's P(k) = e^-μ I_k(μ), k = 0 … K, with μ the variance.

    Miller's algorithm: f_(k-1) = f_(k+1) + (2k/μ) f_k, which I_k obeys too, downwards from f_N = 1,
    f_(N+1) = 0. The recurrence keeps |f_k I_(k+1) − f_(k+1) I_k| at its first value I_(N+1), and
    I_k falls with k; hence |(f_k/I_k) / (f_K/I_K) − 1| ≤ K/f_K for every k ≤ K, which N is chosen
    to bring below 2^-128. All terms are positive, so 2^21 roundings of relative size 2^-192 add up
    to 2^-171.
    """
    rate = _skellam_rate(float(variance))
    last, start = _first(rate, _CUT) - 1, _first(rate, 2.5 * _CUT)
    numerator, denominator = variance.as_integer_ratio()
    weights = [0] * (last + 1)
    above, here = 0, 1 << _POINT
    for k in range(start, 0, -1):
        if k <= last:
            weights[k] = here
        above, here = here, above + 2 * k * denominator * here // numerator
    weights[0] = here
    if last and weights[last] >> (_POINT + 128) < last:
        raise ArithmeticError("the recurrence began too close to its end")
    return weights


def gaussian_weights(variance: Fraction) -> list[int]:
    """Integers proportional to the discrete Gaussian's exp(-k²/(2σ²)), k = 0 … K, with
    σ² `variance`.

    w_(k+1) = w_k r_k and r_(k+1) = r_k q², from w_0 = 1 and r_0 = q = exp(-1/(2σ²)), rounded down
    at 192 bits after the point. No factor exceeds 1, so q² is off by at most 3 roundings, r_k by
    4k + 1, w_k by 2k², and all of them, on both sides, by 4/3 K³ < 2^61: 2^-131.
    """
    last = _first(lambda k: k * k / (2 * float(variance)), _CUT) - 1
    with localcontext(prec=_DIGITS):
        q = int((Decimal(-variance.denominator) / (2 * variance.numerator)).exp() * (1 << _POINT))
    square, ratio = q * q >> _POINT, q
    weights = [1 << _POINT]
    for _ in range(last):
        weights.append(weights[-1] * ratio >> _POINT)
        ratio = ratio * square >> _POINT
    return weights


def masses(weights: list[int]) -> list[int]:
    """|X|'s law in units of 2^-127, sum 2^127: rounded down, what is left over goes to 0."""
    total = 2 * sum(weights) - weights[0]
    rounded = [0, *((weight << (BITS + 1)) // total for weight in weights[1:])]
    rounded[0] = (1 << BITS) - sum(rounded)
    return rounded


def alias_table(parts: list[int]) -> AliasTable:
    """The law `parts` (units of 2^-127, summing to 2^127) as columns of equal mass, without
    any rounding.

    A column that has too little is filled up by one that has too much; as the whole is conserved,
    both run out together.
    """
    bits = (len(parts) - 1).bit_length()
    full = 1 << (BITS - bits)
    own = parts + [0] * ((1 << bits) - len(parts))
    alias = list(range(len(own)))
    poor = [k for k, mass in enumerate(own) if mass < full]
    rich = [k for k, mass in enumerate(own) if mass > full]
    while poor:
        filled, giver = poor.pop(), rich[-1]
        alias[filled] = giver
        own[giver] -= full - own[filled]
        if own[giver] <= full:
            rich.pop()
            if own[giver] < full:
                poor.append(giver)
    high = np.array([mass >> 64 for mass in own], np.uint64)
    low = np.array([mass & (2**64 - 1) for mass in own], np.uint64)
    return AliasTable(high, low, np.array(alias))


def _skellam_rate(mu: float) -> Callable[[int], float]:
    """k ↦ Chernoff's exponent: P(X ≥ k) ≤ exp(-rate), by sinh t = k/μ."""

    def rate(k: int) -> float:
        sinh = k / mu
        return k * asinh(sinh) - k * sinh / (sqrt(1 + sinh * sinh) + 1)

    return rate


def _first(rate: Callable[[int], float], bound: float) -> int:
    """The smallest k ≥ 1 with rate(k) ≥ bound, for a growing rate."""
    high = 1
    while rate(high) < bound:
        high *= 2
    return bisect_left(range(high), bound, lo=high // 2, key=rate)
