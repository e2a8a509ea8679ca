"""Tests of noise and of coins: each says how likely so much is if all is as claimed.

Noise is `[R, Q]`: R vectors that were added to sums (steps, rounds, clients, kinds of sum), Q
coordinates in which nobody contributed, in units of the deviation that was claimed.

| test | what is false if it fails | law of its statistic |
|---|---|---|
| `too_little` | the deviation | χ² of R·Q degrees; exact |
| `uneven` | the deviation in each of the R | χ² of Q degrees, R times, both sides; exact |
| `repeated` | that two vectors are independent | r² is Beta(½, (Q − 1)/2); all pairs |
| `within` | that two coordinates are | normal, R·Q terms a lag; all lags |
| `another_law` | normality | Kolmogorov's, of standardised values: conservative |
| `drawn_too_often` | the sampling rate | binomial; exact |
| `sizes` | independence of the units of a step | χ² of as many degrees as steps |
| `again` | independence of the steps | normal, n·(T − 1) terms |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammainc, gammaincc, log_ndtr
from scipy.stats import binom, kstest

Matrix = NDArray[np.float64]
_MOST = 20_000
"""Values that are held against the normal law."""


def too_little(noise: Matrix) -> float:
    """P(as small a sum of squares)."""
    return float(gammainc(noise.size / 2, float((noise**2).sum()) / 2))


def uneven(noise: Matrix) -> float:
    """P(as small, or as large, a sum of squares of some vector): a sum that is divided by a secret
    number, such as of those who were drawn, has noise of another width in each step.
    """
    squares, freedom = (noise**2).sum(1), noise.shape[1]
    below, above = (part(freedom / 2, squares / 2) for part in (gammainc, gammaincc))
    return min(1.0, 2 * len(noise) * float(min(below.min(), above.min())))


def repeated(noise: Matrix) -> float:
    """P(as large a correlation of some two vectors, of either sign)."""
    rows, width = noise.shape
    if rows < 2:
        return 1.0
    lengths = np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-300)
    unit = noise / lengths
    square = float((np.triu(unit @ unit.T, 1) ** 2).max())
    single = float(betainc((width - 1) / 2, 0.5, max(0.0, 1 - square)))
    return float(min(1.0, single * rows * (rows - 1) / 2))


def within(noise: Matrix) -> float:
    """P(as large a correlation of coordinates some lag apart, over all vectors).

    Coordinates that are no noise are zero in all vectors: then it is rather larger.
    """
    width = noise.shape[1]
    spectrum = np.abs(np.fft.rfft(noise, axis=1)) ** 2
    sums: Matrix = np.fft.irfft(spectrum.sum(0), width)[1 : width // 2 + 1]
    sums[-1] /= math.sqrt(2) if width % 2 == 0 else 1  # half around, each pair is there twice
    share = float(np.abs(sums).max()) / max(float((noise**2).sum()), 1e-300)
    return min(1.0, len(sums) * _two_sided(share * math.sqrt(np.count_nonzero(noise))))


def _two_sided(deviations: float) -> float:
    return min(1.0, 2 * math.exp(float(log_ndtr(-abs(deviations)))))


def another_law(noise: Matrix) -> float:
    """P(as far from the normal law)."""
    values = noise.ravel()[:_MOST]
    deviation = float(values.std())
    return float(kstest(values / deviation, "norm").pvalue) if deviation > 0 else 0.0


def drawn_too_often(units: Matrix, count: int, rate: float) -> float:
    """P(as many units in all), `units` of each of the steps, of `count` that there are."""
    return float(binom.sf(units.sum() - 1, len(units) * count, rate))


def sizes(units: Matrix, count: int, rate: float) -> float:
    """P(sizes of batches as even, or as uneven)."""
    variance = count * rate * (1 - rate)
    if variance == 0:
        return 1.0
    squares, freedom = float(((units - count * rate) ** 2).sum()) / variance, len(units)
    below, above = (part(freedom / 2, squares / 2) for part in (gammainc, gammaincc))
    return min(1.0, 2 * float(min(below, above)))


def again(drawn: NDArray[np.bool_], rate: float) -> float:
    """P(as many, or as few, of a step's examples in the next step, too): `[T, n]`."""
    steps, count = drawn.shape
    variance = rate * (1 - rate)
    if variance == 0 or steps < 2:
        return 1.0
    away = drawn - rate
    return _two_sided(
        float((away[1:] * away[:-1]).sum()) / (variance * math.sqrt(count * (steps - 1)))
    )
