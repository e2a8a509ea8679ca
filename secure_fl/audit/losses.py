"""Sums of privacy losses, from first principles: ε between two numbers, each proved by a few steps
that can be read here. It shares no code with `secure_fl.privacy`.

**Losses.** For a pair of laws P (the unit is there) and Q (it is not), L = log P(x)/Q(x) at x ~ P.
Releases compose by adding losses, and δ(ε) = E[(1 − e^(ε − ΣL))₊]. Both orders of the pair are
computed where they differ, and the larger ε counts. With s = sensitivity/deviation, and q the rate
at which units are drawn:

- sums with everybody in: N(s) against N(0); all of them together are one, of s² = Σ s²;
- sampled sums, zero-out or add-remove: (1 − q)N(0) + qN(s) against N(0);
- sampled sums, replace-one: (1 − q)N(0) + qN(s) against (1 − q)N(0) + qN(−s);
- an ε-DP answer: one of two answers, at odds e^ε : 1 and 1 : e^ε;
- integer noise: see `integer_losses`; on the high side its ε is added, at a share of δ.

**Rounding.** x is cut into cells where the loss passes multiples of a width h. A cell with mass p
under P and r under Q is one outcome of loss log p/r.

- Low side: making one outcome of a cell is post-processing, so no test does better than on the true
  release. Its loss is then lowered to a grid, of an offset at which little is lost.
- High side: an outcome is split to the two ends of its cell, such that its mass under P and under Q
  stays. From the two ends the true outcomes of the cell can be drawn again, so the true release is
  post-processing of the split one, and no test on it does better ("connect the dots": Doroshenko,
  Ghazi, Kamath, Kumar and Manurangsi 2022). Losses above the range count as infinite, losses below
  it are raised to its lowest.

**Truncation.** Sums are computed on a circle, by FFT. Mass outside it is bounded by Chernoff's
inequality from the discretised losses themselves, and charged to δ on either side, as is an
allowance for rounding in floating point, which is an estimate and no proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from secure_fl.audit.integer_losses import IntegerNoise, epsilon_of_curves

Vector = NDArray[np.float64]
Side = Literal["low", "high"]

_MOST_CELLS = 1 << 21
_MOST_OF_ONE = 1 << 18
"""Cells of the circle, and of what one release may lose."""
_INFLATION = 1e-6
"""Cells are so narrow that splitting widens the variance of the sum by about this share."""
_CUT = 1e-4
"""Share of δ that may lie outside the circle."""
_FLOAT = 1e-15
"""Allowed rounding error of δ, a release; of a thousand releases at least."""
_REACH = 9.0
"""Deviations of the noise beyond the means at which x is cut off; Φ(−9) is 1e-19."""
_OFFSETS = np.array([0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3, 0.5])
_HEAVIEST = 12
_SHARES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
_TILTS = 2.0 ** np.arange(-3, 4)


@dataclass(frozen=True)
class Noised:
    """Gaussian sums: s, q, and whether neighbours replace a unit or lack it."""

    shift: float
    rate: float = 1.0
    replaced: bool = False

    @property
    def symmetric(self) -> bool:
        """Whether both orders of the pair have the same losses."""
        return self.rate == 1 or self.replaced

    def losses(self, x: Vector) -> Vector:
        """log P(x)/Q(x), which rises with x."""
        if self.rate == 1:
            return self.shift * x - self.shift**2 / 2
        return self._drawn(x) - self._drawn(-x) if self.replaced else self._drawn(x)

    def _drawn(self, x: Vector) -> Vector:
        odds = math.log(self.rate) + self.shift * x - self.shift**2 / 2
        return np.logaddexp(math.log1p(-self.rate), odds)

    def places(self, losses: Vector) -> Vector:
        """x at which the loss is as given: −∞ where it never is so low."""
        s, q = self.shift, self.rate
        if q == 1:
            return losses / s + s / 2
        size = np.abs(losses) if self.replaced else losses
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self.replaced:
                inner = np.log1p(-np.minimum((1 - q) * np.exp(-size), 1.0))
                return (size + inner - math.log(q)) / s + s / 2
            c = q * math.exp(-(s**2) / 2)
            half = (1 - q) * -np.expm1(-size)
            root = np.log(half + np.sqrt(half**2 + 4 * c**2 * np.exp(-size)))
        return np.sign(losses) * ((size + root - math.log(2 * q)) / s + s / 2)

    def masses(self, x: Vector) -> tuple[Vector, Vector]:
        """P and Q of the intervals between successive x."""
        empty, there = _normal(x, 0.0), _normal(x, self.shift)
        if self.rate == 1:
            return there, empty
        other = _normal(x, -self.shift) if self.replaced else empty
        return (1 - self.rate) * empty + self.rate * there, (
            1 - self.rate
        ) * empty + self.rate * other

    @property
    def ends(self) -> tuple[float, float]:
        """Where x is cut off."""
        return -_REACH - (self.shift if self.replaced else 0.0), _REACH + self.shift


@dataclass(frozen=True)
class Answered:
    """One of two answers, at odds e^ε : 1."""

    epsilon: float

    @property
    def symmetric(self) -> bool:
        """Whether both orders of the pair have the same losses."""
        return True


Pair = Noised | Answered | IntegerNoise


class Outcomes(NamedTuple):
    """Masses under P with their losses; `infinite` is the mass of infinite loss."""

    masses: Vector
    losses: Vector
    infinite: float = 0.0


class Grid(NamedTuple):
    """Masses of the losses (first + i)·h − offset."""

    masses: Vector
    first: int
    offset: float
    infinite: float


def epsilon_of_losses(
    releases: Mapping[Pair, int], delta: float, side: Side, *, most_cells: int = _MOST_CELLS
) -> float:
    """ε at δ of all `releases` together, never above the truth (low) or never below it (high).

    **Guarantee**: as the module's text proves, for the product of the pairs, in both orders.
    **Assumes**: the allowance for floating point. **Not covered**: whether the pairs stand for what
    was released.

    Args:
        releases: pair -> how often it was released.
        delta: within (0, 1).
        side: which of the two is asked for.
        most_cells: of the circle; fewer make the two sides lie farther apart.
    """
    integer = [pair for pair in releases if isinstance(pair, IntegerNoise)]
    if side == "high" and integer:
        return _with_curves(releases, integer, delta)
    silent = [noise for noise in integer if not noise.tells]
    releases = _together({pair: n for pair, n in releases.items() if pair not in silent})
    if not releases:
        return 0.0
    orders = (False,) if all(pair.symmetric for pair in releases) else (False, True)
    return max(_one_order(releases, delta, side, swapped, most_cells) for swapped in orders)


def _with_curves(
    releases: Mapping[Pair, int], integer: Sequence[IntegerNoise], delta: float
) -> float:
    """High side with integer noise, which has no pair there: δ is shared out, ε are added."""
    curves = {noise: releases[noise] for noise in integer}
    rest = {pair: count for pair, count in releases.items() if pair not in curves}
    if not rest:
        return epsilon_of_curves(curves, delta)
    return min(
        epsilon_of_losses(rest, share * delta, "high")
        + epsilon_of_curves(curves, (1 - share) * delta)
        for share in _SHARES
    )


def _together(releases: Mapping[Pair, int]) -> dict[Pair, int]:
    """Sums with everybody in as one."""
    full = [
        (pair, n) for pair, n in releases.items() if isinstance(pair, Noised) and pair.rate == 1
    ]
    rest = {pair: count for pair, count in releases.items() if (pair, count) not in full}
    square = sum(count * pair.shift**2 for pair, count in full)
    return {Noised(math.sqrt(square)): 1, **rest} if full else rest


def _one_order(
    releases: Mapping[Pair, int], delta: float, side: Side, swapped: bool, most_cells: int
) -> float:
    count, cut = sum(releases.values()), _CUT * delta
    width = math.sqrt(6 * _INFLATION * _variance(releases) / count)
    width = max(width, max(map(_range, releases)) / _MOST_OF_ONE)
    while True:
        grids = {pair: _grid(pair, width, side, swapped) for pair in releases}
        low, high = _circle(releases, grids, width, cut)
        if high - low < most_cells:
            break
        width *= 1.1 * (high - low) / most_cells
    size = 1 << (high - low).bit_length()
    masses = _composed(releases, grids, size)[np.arange(low, low + size) % size]
    offset = sum(releases[pair] * grid.offset for pair, grid in grids.items())
    losses: Vector = np.arange(low, low + size, dtype=np.float64) * width - offset
    given = cut + _FLOAT * max(count, 1000)
    if side == "low":
        return _solved(masses, losses, delta + given)
    infinite = sum(releases[pair] * grid.infinite for pair, grid in grids.items())
    return _solved(masses, losses, delta - given - infinite)


def _variance(releases: Mapping[Pair, int]) -> float:
    """Of the sum of losses, about; it decides on the width of cells only."""
    total = 0.0
    for pair, count in releases.items():
        if isinstance(pair, Answered):
            total += count * (pair.epsilon / math.cosh(pair.epsilon / 2)) ** 2
            continue
        if isinstance(pair, IntegerNoise):
            total += count * pair.shift**2
            continue
        x = np.linspace(*pair.ends, 4001)
        weights, losses = pair.masses(x)[0], pair.losses((x[1:] + x[:-1]) / 2)
        mean = float(weights @ losses)
        total += count * max(float(weights @ (losses - mean) ** 2), 1e-16)
    return total


def _range(pair: Pair) -> float:
    """Between the least and the largest loss of one release."""
    if isinstance(pair, Answered):
        return 2 * pair.epsilon
    if isinstance(pair, IntegerNoise):
        return 2 * _REACH * pair.shift + pair.shift**2
    low, high = pair.losses(np.array(pair.ends))
    return float(high - low)


def _grid(pair: Pair, width: float, side: Side, swapped: bool) -> Grid:
    if isinstance(pair, Answered):
        right = 1 / (1 + math.exp(-pair.epsilon))
        losses = np.array([pair.epsilon, -pair.epsilon])
        found = Outcomes(np.array([right, 1 - right]), losses)
    elif isinstance(pair, IntegerNoise):
        found = _merged(*pair.laws(), width)
    else:
        found = _outcomes(pair, width, side, swapped)
    return _split(found, width) if side == "high" else _lowered(found, width)


def _outcomes(pair: Noised, width: float, side: Side, swapped: bool) -> Outcomes:
    """One outcome a cell. High: cells between multiples of h; low: around them."""
    ends = pair.losses(np.array(pair.ends)) / width
    shifted = 0.0 if side == "high" else 0.5
    borders = (np.arange(math.floor(ends[0]), math.ceil(ends[1]) + 1) - shifted) * width
    x = np.concatenate([[-np.inf], pair.places(borders), [np.inf]])
    one, other = pair.masses(x)
    if swapped:
        one, other = other[::-1], one[::-1]
        borders = -borders[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        losses = np.log(one) - np.log(other)
    infinite = 0.0
    if side == "high":
        infinite, losses[0], one[-1] = float(one[-1]), borders[0], 0.0
        losses[1:-1] = np.clip(losses[1:-1], borders[:-1], borders[1:])
    kept = (one > 0) & np.isfinite(losses)
    if side == "high":
        infinite += float(one[~kept].sum())
    return Outcomes(one[kept], losses[kept], infinite)


def _merged(one: Vector, other: Vector, width: float) -> Outcomes:
    """Low side: numbers of about the same loss become one outcome."""
    kept = (one > 0) & (other > 0)
    one, other = one[kept], other[kept]
    cells = np.rint(np.log(one / other) / width).astype(np.int64)
    cells -= cells.min()
    size = int(cells.max()) + 1
    masses, others = _binned(cells, one, size), _binned(cells, other, size)
    filled = masses > 0
    return Outcomes(masses[filled], np.log(masses[filled] / others[filled]))


def _split(outcomes: Outcomes, width: float) -> Grid:
    """Each outcome to the two multiples of h beside it; P and Q stay."""
    places = np.floor(outcomes.losses / width).astype(np.int64)
    up = -np.expm1(places * width - outcomes.losses) / -math.expm1(-width)
    up = outcomes.masses * np.clip(up, 0.0, 1.0)
    first = int(places.min())
    masses = _binned(places - first, outcomes.masses - up, int(places.max()) - first + 2)
    masses += _binned(places - first + 1, up, len(masses))
    return Grid(masses, first, 0.0, outcomes.infinite)


def _lowered(outcomes: Outcomes, width: float) -> Grid:
    """Each loss down to the next of a grid; of several offsets, the one that lowers them least."""
    units = outcomes.losses / width

    def lost(offset: float) -> float:
        return float(outcomes.masses @ np.mod(units + offset, 1.0))

    heaviest = np.argsort(outcomes.masses)[-_HEAVIEST:]
    aligned = np.mod(-units[heaviest], 1.0) + 1e-9
    offset = float(min(np.concatenate([_OFFSETS, aligned]), key=lost))
    places = np.floor(units + offset).astype(np.int64)
    first = int(places.min())
    masses = _binned(places - first, outcomes.masses, int(places.max()) - first + 1)
    return Grid(masses, first, offset * width, 0.0)


def _circle(
    releases: Mapping[Pair, int], grids: Mapping[Pair, Grid], width: float, cut: float
) -> tuple[int, int]:
    """Places between which all of the sum lies, but for a mass of `cut` (Chernoff)."""
    need, spread = math.log(2 / cut), 0.0
    for pair, grid in grids.items():
        places = (grid.first + np.arange(len(grid.masses))) * width
        mean = float(grid.masses @ places)
        spread += releases[pair] * float(grid.masses @ (places - mean) ** 2)
    tilts = _TILTS * math.sqrt(2 * need / max(spread, width**2))

    def log_moment(tilt: float) -> float:
        total = 0.0
        for pair, grid in grids.items():
            powers = tilt * width * (grid.first + np.arange(len(grid.masses)))
            top = powers.max()
            total += releases[pair] * (top + math.log(grid.masses @ np.exp(powers - top)))
        return total

    high = min((log_moment(tilt) + need) / tilt for tilt in tilts)
    low = max(-(log_moment(-tilt) + need) / tilt for tilt in tilts)
    return math.floor(low / width) - 1, math.ceil(high / width) + 1


def _composed(releases: Mapping[Pair, int], grids: Mapping[Pair, Grid], size: int) -> Vector:
    """The law of the sum on a circle of `size` places."""
    product = np.ones(size // 2 + 1, dtype=np.complex128)
    for pair, grid in grids.items():
        places = (grid.first + np.arange(len(grid.masses))) % size
        product *= np.fft.rfft(_binned(places, grid.masses, size)) ** releases[pair]
    return np.asarray(np.fft.irfft(product, size))


def _binned(places: NDArray[np.int64], masses: Vector, size: int) -> Vector:
    """Masses added up by place."""
    return np.asarray(np.bincount(places, masses, size), dtype=np.float64)


def _solved(masses: Vector, losses: Vector, delta: float) -> float:
    """The smallest ε ≥ 0 with E[(1 − e^(ε − L))₊] ≤ δ; infinite for δ ≤ 0."""
    if delta <= 0:
        return math.inf
    masses, losses = masses[losses > 0], losses[losses > 0]
    above = np.cumsum(masses[::-1])[::-1]
    scaled = np.cumsum((masses * np.exp(-losses))[::-1])[::-1]
    starts = np.concatenate([[0.0], losses[:-1]])  # between a start and its loss both sums stay
    at_start = above - scaled * np.exp(np.minimum(starts, 700.0))
    over = np.flatnonzero(at_start > delta)
    if len(over) == 0:
        return 0.0
    last = over[-1]
    if scaled[last] <= 0:
        return float(losses[last])
    return float(min(math.log((above[last] - delta) / scaled[last]), losses[last]))


def _normal(x: Vector, mean: float) -> Vector:
    """Mass of N(mean, 1) between successive x, from the tail in which it is not rounded away."""
    left, right = x[:-1] - mean, x[1:] - mean
    low, high = ndtr(left), ndtr(right)
    return np.asarray(np.where(left > 0, ndtr(-left) - ndtr(-right), high - low))
