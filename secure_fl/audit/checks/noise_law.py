"""Is this the noise that was charged for? Its variance and its law, from what clients sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, ive, ndtr

from secure_fl.audit.outcome import Figure

_BINS, _LEAST = 48, 100
"""Of a χ² test: bins at most, and draws that each expects: its law then holds in the tail too."""
_REACH = 12
"""Deviations of the law that are tabulated: beyond lies 1e-30 of it."""
_LOWEST_BITS = 16


@dataclass(frozen=True)
class Measured:
    """Noise of one kind, and what was claimed of it.

    Attributes:
        name: which noise, in words.
        ratio: its mean square over the claimed variance.
        error: the standard error of that ratio.
        p_narrow: the probability of so small a ratio where the claim is true.
    """

    name: str
    ratio: float
    error: float
    p_narrow: float

    @property
    def figure(self) -> Figure:
        """For `audit.json`; the ratio must be 1 at least."""
        low, high = self.ratio - 1.96 * self.error, self.ratio + 1.96 * self.error
        return Figure(f"variance of the noise over the claim, {self.name}", self.ratio, low, high)


def measured(name: str, noise: NDArray[np.float64], variance: float) -> Measured:
    """The mean square of independent draws of mean 0, beside the claimed variance.

    The sum of squares is taken for χ² of as many degrees as give its own variance: for normal noise
    that is exact, and for integers whose fourth moment is 3v² + v it is Satterthwaite's; its lower
    tail is then the true one to a few per cent at the sizes that are asked for here.
    """
    count, excess = noise.size, 1 / variance
    ratio = float(np.square(noise).mean() / variance)
    freedom = 2 * count / (2 + excess)
    narrow = float(gammainc(freedom / 2, freedom * ratio / 2))
    return Measured(name, ratio, (2 / freedom) ** 0.5, narrow)


def of_gaussian(draws: NDArray[np.float64]) -> float:
    """The probability of draws as far from the normal law of deviation 1, by bins of equal mass."""
    shares = ndtr(draws)
    bins = min(_BINS, max(2, draws.size // _LEAST))
    seen = np.bincount(np.minimum((shares * bins).astype(int), bins - 1), minlength=bins)
    return chi_square(seen, np.full(bins, draws.size / bins))


def of_integers(draws: NDArray[np.int64], kind: str, variance: float) -> float:
    """The probability of integers as far from the named law, by χ² over runs of values of nearly
    equal mass, and over the lowest bits, which any rounding after the draw would bend.

    The law is computed here from its formula: P(k) = e^-v I_k(v) of Skellam, and exp(−k²/2v) of the
    discrete Gaussian.
    """
    reach = int(_REACH * variance**0.5) + 20
    values = np.arange(-reach, reach + 1)
    law = ive(np.abs(values), variance)
    if kind == "discrete_gaussian":
        law = np.exp(-(values.astype(float) ** 2) / (2 * variance))
    law /= law.sum()
    inside = np.clip(draws, -reach, reach) + reach
    bins = min(_BINS, max(2, draws.size // _LEAST))
    bin_of = np.minimum((law.cumsum() * bins).astype(int), bins - 1)
    low_bits = (values % _LOWEST_BITS).astype(int)
    found = [
        chi_square(np.bincount(of[inside], minlength=len(mass)), draws.size * mass)
        for of in (bin_of, low_bits)
        for mass in [np.bincount(of, weights=law)]
    ]
    return min(1.0, 2 * min(found))


def chi_square(seen: NDArray[Any], expected: NDArray[Any]) -> float:
    """P(as far) of counts; bins that expect too few are taken together."""
    few = expected < _LEAST / 2
    if few.any():
        seen = np.append(seen[~few], seen[few].sum())
        expected = np.append(expected[~few], expected[few].sum())
    there = expected > 0
    if seen[~there].any():
        return 0.0
    seen, expected = seen[there], expected[there]
    distance = float((np.square(seen - expected) / expected).sum())
    return float(gammaincc((len(seen) - 1) / 2, distance / 2)) if len(seen) > 1 else 1.0
