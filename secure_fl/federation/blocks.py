"""Updates as blocks of integers: what clients send into a sum, and what an opened sum means.

A phase's `Rules` say both. Without client-level privacy they are a `Grid`: fixed point without noise, one block a pool, zeros in the
blocks of pools that were not chosen, a count for each pool, and where clients count by their examples a weight beside each part.
Under client-level privacy the rules are `privacy.client_level.ClientLevel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.privacy.client_level import Blocks
from secure_fl.secure_sum.codec import Codec
from secure_fl.secure_sum.layout import FieldLayout


@dataclass(frozen=True)
class Grid:
    """Fixed point for one kind of sum.

    Attributes:
        clients: who may be in a sum, at most.
        shared, pooled: coordinates that all clients sum, and coordinates of each of the K `pools`.
        limit: coordinates are cut to ± this.
        weighted: whether clients count by a weight within [0, 1] instead of alike.
        layout: fields in a slot of the secure sum.
    """

    clients: int
    shared: int
    pooled: int
    pools: int
    limit: float
    weighted: bool
    layout: FieldLayout

    @cached_property
    def codec(self) -> Codec:
        """The finest grid on which no field can overflow."""
        return Codec.derive(clients=self.clients, width=sum(self._widths), pools=self.pools, limit=self.limit, layout=self.layout)

    @property
    def _widths(self) -> tuple[int, int]:
        """Fields of the shared block and of a pool's: each with its sum of weights at the end."""
        extra = int(self.weighted)
        return (self.shared + extra if self.shared else 0), self.pooled + extra

    @property
    def counts(self) -> int:
        """Count fields: one a pool; none where there is one pool, whose members are the survivors."""
        return self.pools if self.pools > 1 else 0

    def blocks(self, update: Tensor, pool: int, weight: float = 1.0) -> Blocks:
        """One client's vector from its change `[shared + pooled]`: shared part first.

        Raises:
            SecureSumError: a value is not finite.
        """
        parts, one = [], torch.tensor([weight * self.limit])
        for part in update.split([self.shared, self.pooled]):
            if len(part):
                parts += [weight * part.float(), *([one] if self.weighted else [])]
        integers = torch.from_numpy(self.codec.quantise(torch.cat(parts).numpy()))
        shared, pooled = integers.split(list(self._widths))
        head, pools = torch.zeros(self.counts, dtype=torch.int64), torch.zeros(self.pools, len(pooled), dtype=torch.int64)
        pools[pool] = pooled
        if self.counts:
            head[pool] = 1
        return Blocks(head, shared, pools)

    def means(self, total: Blocks, survivors: int, minimum: int) -> tuple[Tensor, Tensor]:
        """Mean changes, float64: `[shared]` and `[K, pooled]`; zero for pools with fewer than `minimum` members, or without weight."""
        values = [torch.from_numpy(self.codec.dequantise(part.numpy())) for part in (total.shared, total.pools)]
        counts = total.head.double() if self.counts else torch.tensor([float(survivors)], dtype=torch.float64)
        if not self.weighted:
            return values[0] / survivors, values[1] / counts.clamp_min(1)[:, None] * (counts >= minimum)[:, None]
        shared = _weighted(values[0][None], self.limit)[0] if self.shared else values[0]
        return shared, _weighted(values[1], self.limit) * (counts >= minimum)[:, None]

    def heard(self, total: Blocks, survivors: int, minimum: int) -> tuple[bool, Tensor]:
        """Whether a sum says anything about the shared part, and about each pool, bool `[K]`.

        About a pool it does where it has `minimum` members, and weight where clients count by a weight (idle members have none).
        """
        enough = (total.head if self.counts else torch.tensor([survivors])) >= minimum
        if not self.weighted:
            return bool(self.shared), enough
        return bool(self.shared) and int(total.shared[-1]) > 0, enough & (total.pools[:, -1] > 0)

    def sums(self, total: Blocks) -> Tensor:
        """Sum of an unweighted single block, float64 `[pooled]`."""
        return torch.from_numpy(self.codec.dequantise(total.pools[0].numpy()))


def _weighted(values: Tensor, limit: float) -> Tensor:
    """Rows of weighted sums with the sum of weights (times `limit`) at their end, divided by it; a row without weight gives zeros."""
    weight = values[:, -1:] / limit
    return torch.where(weight > 0, values[:, :-1] / weight.clamp_min(1e-12), torch.zeros_like(values[:, :-1]))
