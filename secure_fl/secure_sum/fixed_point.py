"""Fixed point: floats as whole numbers of steps, so few that no sum of them overflows a field.

No field overflows where n·B + m ≤ E: n clients, each within ±B in a field, their summed noise
within ±m (`noise_bounds.largest_noise`; 0 without noise), and E the edge of a field
(`FieldLayout.edge`). `Codec` takes the finest grid with m = 0; client-level privacy, whose noise
grows with its grid, the finest with the noise that it adds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, frexp, ldexp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.crypto.key_streams import RUN, runs
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.layout import FieldLayout

FEWEST_STEPS = 16
"""A grid with fewer steps from 0 to the limit is refused: it would carry almost no signal."""
Coins = Callable[[int], NDArray[np.float64]]
"""Gives so many independent numbers, uniform between 0 and 1."""

_TRIES = 20
_SCALE_BITS = 24
_MOST_STEPS = 1 << 62


def square_of(integers: Tensor) -> int:
    """The square of the norm of int64 `[P]`, exact below 2^63."""
    return int(torch.dot(integers, integers))


def rounded(steps: Tensor, square: int = 0, coins: Coins | None = None) -> Tensor:
    """A vector in grid steps, float64 `[P]`, as int64 `[P]`.

    Toward zero, which never lengthens it. With coins each coordinate goes up with the probability
    of its fraction, which is unbiased, on condition that the square of the vector's norm is at most
    `square`; after 20 draws that are longer it goes toward zero as well.
    """
    for _ in range(_TRIES if coins else 0):
        assert coins is not None
        tried = (steps + torch.from_numpy(coins(len(steps)))).floor().long()
        if square_of(tried) <= square:
            return tried
    return steps.long()


@dataclass(frozen=True)
class Codec:
    """Fixed point without noise: `scale` steps in a unit, and at most `bound` from 0."""

    scale: float
    bound: int

    @classmethod
    def finest(cls, clients: int, limit: float, layout: FieldLayout) -> Codec:
        """The finest on which `clients` coordinates within ± `limit` never pass a field's edge. The
        scale is cut to 24 bits, so that its product with a float32 is exact in float64. Raises
        SecureSumError: no such limit, or so many clients leave fewer than 16 steps to it.
        """
        if not 1e-30 < limit < 1e30:
            problem, remedy = "not a size that a coordinate can have", "between 1e-30 and 1e30"
            raise SecureSumError(problem, "limit", limit, remedy)
        bound = layout.edge // clients if clients > 0 else 0
        if bound < FEWEST_STEPS:
            problem = f"sums in fields of {layout.bits} bits could overflow on every useful grid"
            remedy = f"1 to {layout.edge // FEWEST_STEPS} clients a round, or wider fields"
            raise SecureSumError(problem, "clients", clients, remedy)
        mantissa, exponent = frexp(bound / limit)
        scale = ldexp(floor(mantissa * 2**_SCALE_BITS), exponent - _SCALE_BITS)
        return cls(scale, bound)

    def quantise(self, values: Tensor, out: Tensor) -> None:
        """Values, float32 `[n]`, in steps: cut to ± the limit, then toward zero. Raises
        SecureSumError: a value is not finite.

        Args:
            values: in the units of an update.
            out: int64 `[n]`, where the steps are written, run by run: memory for whole vectors in
                between would cost more than the arithmetic.
        """
        _need_finite(values, "a coordinate")
        work = torch.empty(min(RUN, len(values)), dtype=torch.float64)
        for start, stop in runs(len(values)):
            steps = work[: stop - start].copy_(values[start:stop]).mul_(self.scale)
            out[start:stop] = rounded(steps.clamp_(-self.bound, self.bound))

    def dequantise(self, sums: Tensor) -> Tensor:
        """Integers, sums or one client's, in the units of values, float64."""
        return sums.double() / self.scale


@dataclass(frozen=True)
class Digits:
    """How a value within ± `limit`, on the codec's own grid, is written in several small fields.

    A whole number of steps is written to a base that one field holds for every client at once, and
    each digit is summed in a field of its own. Sums of digits are digits of the sum, so nothing is
    carried and nothing rounds: the range grows by a factor of the base with every field, and the
    grid stays as fine as that of updates.

    Attributes:
        scale: steps in one unit of a value.
        base: a power of two; a digit lies within ± base/2.
        count: digits a value has, the lowest first.
        limit: values are cut to ± this.
    """

    scale: float
    base: int
    count: int
    limit: float

    @classmethod
    def of(cls, codec: Codec, limit: float) -> Digits:
        """The fewest digits that reach a limit; one that int64 cannot count in steps is lowered."""
        base = 1 << (codec.bound.bit_length() - 1)
        most = min(limit, _MOST_STEPS / codec.scale / 2)
        steps, count, reach = most * codec.scale, 1, base // 2 - 1
        while reach < steps:
            count, reach = count + 1, reach + (base // 2 - 1) * base**count
        return cls(codec.scale, base, count, most)

    def written(self, values: Tensor) -> Tensor:
        """Digits of finite values `[n]`, int64 `[count * n]`: the lowest of all values first."""
        _need_finite(values, "a running statistic")
        steps = rounded(values.double().clamp(-self.limit, self.limit) * self.scale)
        found, half = list[Tensor](), self.base // 2
        for _ in range(self.count):
            digit = (steps + half) % self.base - half
            found.append(digit)
            steps = (steps - digit) // self.base
        return torch.cat(found)

    def read(self, digits: Tensor) -> Tensor:
        """Values `[..., n]`, float64, of digits `[..., count * n]`, or of their sums."""
        rows = digits.double().unflatten(-1, (self.count, -1))
        powers = [float(self.base) ** place for place in range(self.count)]
        places = torch.tensor(powers, dtype=torch.float64)[:, None]
        values: Tensor = (rows * places).sum(-2) / self.scale
        return values


def _need_finite(values: Tensor, what: str) -> None:
    if len(values) and not all(bool(end.isfinite()) for end in torch.aminmax(values)):
        problem, remedy = f"{what} is not finite", "lower the learning rate, or skip the round"
        raise SecureSumError(problem, "update", "(hidden)", remedy)
