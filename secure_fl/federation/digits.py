"""Values without a natural bound, such as running statistics, as several digits of a sum's small fields.

A value on the codec's own grid is a whole number of steps; it is written to a base that one field holds for every client at once, and each digit
is summed in a field of its own. Sums of digits are digits of the sum, so nothing is carried and nothing rounds: the range grows by a factor of
the base with every field, and the grid stays as fine as that of updates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secure_fl.secure_sum.codec import Codec

_MOST_STEPS = 1 << 62


@dataclass(frozen=True)
class Digits:
    """How a value within ± `limit` is written.

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
        """The fewest digits that reach `limit` on a codec's grid; a limit beyond what int64 counts in steps is lowered to that."""
        base = 1 << (codec.bound.bit_length() - 1)
        most = min(limit, _MOST_STEPS / codec.scale / 2)
        steps, count, reach = most * codec.scale, 1, base // 2 - 1
        while reach < steps:
            count, reach = count + 1, reach + (base // 2 - 1) * base**count
        return cls(codec.scale, base, count, most)

    def written(self, values: Tensor) -> Tensor:
        """Digits of values `[n]`, int64 `[count * n]`: the lowest of all values first."""
        steps = (values.double().clamp(-self.limit, self.limit) * self.scale).trunc().long()
        found, half = list[Tensor](), self.base // 2
        for _ in range(self.count):
            digit = (steps + half) % self.base - half
            found.append(digit)
            steps = (steps - digit) // self.base
        return torch.cat(found)

    def read(self, digits: Tensor) -> Tensor:
        """Values `[..., n]`, float64, of digits `[..., count * n]`, or of their sums."""
        rows = digits.double().unflatten(-1, (self.count, -1))
        places = torch.tensor([float(self.base) ** place for place in range(self.count)], dtype=torch.float64)
        values: Tensor = (rows * places[:, None]).sum(-2) / self.scale
        return values
