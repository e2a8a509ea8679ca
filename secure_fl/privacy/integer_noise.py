"""Integer noise for sums that leave the client: Skellam and discrete Gaussian, drawn from
exact tables.

Integers have no low bits to leak through (compare `NoiseStream.gaussian`): what is sent is what the
proof is about.

**Guarantee**: a draw's law is within total variation `tv_per_draw` = 2^-99 of the named one, given
uniform words; the proof is in `noise_tables.py`.
An (ε, δ) that was computed for the named law holds for N draws with δ + (1 + e^ε)·N·2^-99.

**Assumes**: the stream's words are uniform (`noise.py`), and the noise is added in arithmetic that
does not round.

**Not covered**: timing. A draw does the same work whatever comes out, up to a second word with
probability 2^(b-63) ≤ 2^-42, but *where* it reads in its table follows from the secret word, which
a program that shares the processor's cache may observe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import PrivacyError
from secure_fl.privacy.noise import NoiseStream, blocks, check_count
from secure_fl.privacy.noise_tables import (
    TOTAL_VARIATION,
    AliasTable,
    alias_table,
    gaussian_weights,
    masses,
    skellam_weights,
)

SMALLEST_DEVIATION, LARGEST_DEVIATION = 2.0**-10, 2.0**16
"""Beyond the largest a table would take more than 2^20 columns (24 MiB) and more than some seconds
to build; below the smallest, noise is 0.
"""


class IntegerNoise(Protocol):
    """A law of integers, symmetric about 0."""

    @property
    def variance(self) -> float:
        """Its parameter μ or σ², which the accountant takes, in squared units of the grid."""

    @property
    def tv_per_draw(self) -> float:
        """Bound on the total variation between one draw and the law: to be summed into δ."""

    def sample(self, stream: NoiseStream, count: int) -> NDArray[np.int64]:
        """`[count]` independent draws."""


@dataclass(frozen=True)
class TabulatedNoise:
    """Integer noise drawn from a table, by one look-up a draw."""

    variance: float
    table: AliasTable = field(repr=False, compare=False)
    tv_per_draw: float = TOTAL_VARIATION

    def sample(self, stream: NoiseStream, count: int) -> NDArray[np.int64]:
        """`[count]` independent draws, one word each. Raises PrivacyError: `count` is negative."""
        noise = np.empty(check_count(count), np.int64)
        for part in blocks(count):
            noise[part] = _drawn(self.table, stream.words(part.stop - part.start), stream)
        return noise


def skellam(variance: float) -> IntegerNoise:
    """The difference of two Poisson variables of mean `variance`/2 each. Sums of independent ones
    are Skellam again, and variances add.

    So n clients that each add `skellam(v / n)` add `skellam(v)` together. Agarwal, Kairouz, Liu
    2021 (arXiv 2110.04995).

    Args:
        variance: μ, in squared units of the grid; the table is for exactly this float64.

    Raises:
        PrivacyError: the deviation √μ is outside [2^-10, 2^16].
    """
    _check_deviation("variance", variance, max(variance, 0) ** 0.5)
    return TabulatedNoise(variance, _skellam_table(Fraction(float(variance))))


def discrete_gaussian(deviation: float) -> IntegerNoise:
    """P(k) proportional to exp(-k²/(2σ²)) with σ `deviation`. Sums of these are only close to one
    (Kairouz, Liu, Steinke 2021, arXiv 2102.06387).

    Its `variance` is the parameter σ²; the true variance is never larger, and for σ ≥ 1 equal to 1
    part in 10^6 (Canonne, Kamath, Steinke 2020).

    Raises:
        PrivacyError: `deviation` is outside [2^-10, 2^16].
    """
    _check_deviation("deviation", deviation, deviation)
    return TabulatedNoise(deviation**2, _gaussian_table(Fraction(float(deviation))))


@lru_cache(maxsize=4)
def _skellam_table(variance: Fraction) -> AliasTable:
    return alias_table(masses(skellam_weights(variance)))


@lru_cache(maxsize=4)
def _gaussian_table(deviation: Fraction) -> AliasTable:
    return alias_table(masses(gaussian_weights(deviation**2)))


def _drawn(table: AliasTable, words: NDArray[np.uint64], stream: NoiseStream) -> NDArray[np.int64]:
    """One draw a word; its bits from the lowest: b for the column, 1 sign, 63 − b fraction."""
    columns = len(table.alias)
    bits = np.uint64(columns.bit_length() - 1)
    column = (words & np.uint64(columns - 1)).view(np.int64)
    fraction = words >> (bits + np.uint64(1))
    high = table.high[column]
    keep = fraction < high
    tied = np.flatnonzero(fraction == high)
    if len(tied):
        keep[tied] = stream.words(len(tied)) < table.low[column[tied]]
    magnitude = np.where(keep, column, table.alias[column])
    minus = ((words >> bits) & np.uint64(1)).view(np.int64)
    signed: NDArray[np.int64] = (magnitude ^ -minus) + minus
    return signed


def _check_deviation(name: str, value: float, deviation: float) -> None:
    if not SMALLEST_DEVIATION <= deviation <= LARGEST_DEVIATION:
        problem = "no table is made for a deviation outside [2^-10, 2^16] grid steps"
        remedy = "choose a larger scale (a finer grid), or more noise"
        if deviation > LARGEST_DEVIATION:
            remedy = "choose a smaller scale (a coarser grid), which the deviation grows with"
        raise PrivacyError(problem, name, value, remedy)
