"""Integer noise in the second account. Which neighbours are worst is not known for it, so the two
sides come from different arguments.

- Low: one pair of neighbours that the event allows, a single coordinate that moves by the largest
  whole number within both norms. Its two laws are written down number by number; leaving out far
  numbers, and all other coordinates, is post-processing.
- High: the Rényi curves of the papers, turned into ε. Skellam (Agarwal, Kairouz and Liu 2021,
  theorem 3.5), in whole orders α, with μ the variance:
  αΔ₂²/(2μ) + min(((2α − 1)Δ₂² + 6Δ₁)/(4μ²), 3Δ₁/(2μ)).
  Sums of n discrete Gaussians (Kairouz, Liu and Steinke 2021, proposition 14), σ² the variance:
  the least of αΔ₂²/(2σ²) + τd, α/2·(Δ₂²/σ² + 2τΔ₁/σ + τ²d) and α/2·(Δ₂/σ + τ√d)², where
  τ = 10·Σ_{k<n} exp(−2π²(σ²/n)·k/(k + 1)).
  ε = D_α + log((α − 1)/α) − (log δ + log α)/(α − 1), at the best α (Canonne, Kamath and Steinke
  2020, proposition 12).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from secure_fl.errors import AuditError

Vector = NDArray[np.float64]

_ORDERS: Vector = np.unique(np.concatenate([np.arange(2, 200), np.geomspace(200, 9000, 60)]) // 1)
_REACH, _MOST = 10.0, 1 << 24
_ACCURACY = 1e-9
"""Of the laws, relative: they are lowered and the losses with them by so much."""
_ASYMPTOTIC = 1e4
"""From this variance on, Bessel functions by their expansion, good to 1e-12 there."""


@dataclass(frozen=True)
class IntegerNoise:
    """One sum of integer vectors with integer noise; fields as the ledger's, at one adjacency."""

    kind: Literal["skellam", "discrete_gaussian"]
    variance: float
    l2: float
    l1: float
    parties: int
    dimension: int
    error: float

    symmetric = True

    @property
    def shift(self) -> float:
        """By how many deviations the low side's coordinate moves."""
        return math.floor(min(self.l2, self.l1)) / math.sqrt(self.variance)

    @property
    def tells(self) -> bool:
        """Whether the low side's coordinate moves at all, and its law is near a known one."""
        return self.shift > 0 and (self.kind == "skellam" or self.apart < 1)

    def laws(self) -> tuple[Vector, Vector]:
        """Masses of the moved and of the unmoved coordinate, number by number, lowered and raised
        by what they may be wrong.

        Raises:
            AuditError: too many numbers to write down.
        """
        moved, far = math.floor(min(self.l2, self.l1)), _REACH * math.sqrt(self.variance) + 50
        if 2 * far + moved > _MOST:
            remedy = "look at its Rényi curve by hand"
            raise AuditError("too wide to be written down", "event", self.variance, remedy)
        numbers = np.arange(-math.ceil(far), math.ceil(far) + moved + 1)
        there, empty = self._log_law(numbers - moved), self._log_law(numbers)
        slack = _ACCURACY + (self.apart if self.kind == "discrete_gaussian" else 0.0)
        return np.exp(there - slack), np.exp(empty + slack)

    @property
    def apart(self) -> float:
        """τ: how far a sum of discrete Gaussians is from being one."""
        k = np.arange(1, self.parties)
        each = self.variance / self.parties
        return 10 * float(np.exp(-2 * math.pi**2 * each * k / (k + 1)).sum())

    def _log_law(self, numbers: NDArray[np.int64]) -> Vector:
        n, v = np.abs(numbers).astype(np.float64), self.variance
        if self.kind == "discrete_gaussian":
            whole = np.arange(-math.ceil(40 * math.sqrt(v)) - 40, math.ceil(40 * math.sqrt(v)) + 41)
            total = (
                math.log(float(np.exp(-(whole**2) / (2 * v)).sum()))
                if v < _ASYMPTOTIC
                else (
                    0.5 * math.log(2 * math.pi * v)  # Poisson's formula: off by 2·exp(−2π²v)
                )
            )
            return -(n**2) / (2 * v) - total
        if v < _ASYMPTOTIC:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(ive(n, v)))
        r = np.hypot(n, v)  # Debye's expansion of e^(−v)·I_n(v) (DLMF 10.41.3), in n/r
        p = (n / r) ** 2
        first = (3 - 5 * p) / (24 * r)
        second = (81 - 462 * p + 385 * p**2) / (1152 * r**2)
        leading = n**2 / (r + v) - n * np.arcsinh(n / v) - 0.5 * np.log(2 * math.pi * r)
        return np.asarray(leading + np.log1p(first + second))

    def curve(self) -> Vector:
        """Rényi divergences at `_ORDERS`, at most."""
        l2, v = self.l2, self.variance
        l1 = min(self.l1, l2 * math.sqrt(self.dimension), l2**2)
        if self.kind == "skellam":
            beyond = ((2 * _ORDERS - 1) * l2**2 + 6 * l1) / (4 * v**2)
            return _ORDERS * l2**2 / (2 * v) + np.minimum(beyond, 3 * l1 / (2 * v))
        tau, d = self.apart, self.dimension
        added = _ORDERS * l2**2 / (2 * v) + tau * d
        widened = _ORDERS / 2 * (l2**2 / v + 2 * tau * l1 / math.sqrt(v) + tau**2 * d)
        stretched = _ORDERS / 2 * (l2 / math.sqrt(v) + tau * math.sqrt(d)) ** 2
        return np.asarray(np.minimum(np.minimum(added, widened), stretched))


def epsilon_of_curves(releases: Mapping[IntegerNoise, int], delta: float) -> float:
    """ε at δ of all releases, at most; what the sampler's law is off is taken from δ."""
    total = sum((count * noise.curve() for noise, count in releases.items()), np.zeros(1))
    error = sum(
        count * noise.error * noise.parties * noise.dimension for noise, count in releases.items()
    )
    found, left = 0.0, delta
    for _ in range(100):
        best = np.min(
            total + np.log1p(-1 / _ORDERS) - (math.log(left) + np.log(_ORDERS)) / (_ORDERS - 1)
        )
        found = max(found, float(best), 0.0)
        now = delta - (1 + math.exp(min(found, 700.0))) * error
        if now <= 0:
            return math.inf
        if now >= left * (1 - 1e-12):
            return found * (1 + 1e-9)
        left = now
    return math.inf
