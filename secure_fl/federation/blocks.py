"""Updates as blocks of integers: what clients send into a sum, and what an opened sum means.

A phase's `Rules` say both. Without client-level privacy they are a `Grid`: fixed point without noise, one block a pool, zeros in the
blocks of pools that were not chosen, a count for each pool, and where clients count by their examples a weight beside each part.
Under client-level privacy the rules are `privacy.client_level.ClientLevel`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.errors import SecureSumError
from secure_fl.federation.digits import Digits
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
        wide: which coordinates are cut to ± `wide_limit` instead, as places in the update, ascending: running statistics, whose changes
            have the units of the data.
    """

    clients: int
    shared: int
    pooled: int
    pools: int
    limit: float
    weighted: bool
    layout: FieldLayout
    wide: tuple[int, ...] = ()
    wide_limit: float = 1.0

    @cached_property
    def codec(self) -> Codec:
        """The finest grid on which no field can overflow, for all coordinates but the wide ones."""
        fields = sum(part.plain for part in self._parts)
        return Codec.derive(clients=self.clients, width=max(1, fields), pools=self.pools, limit=self.limit, layout=self.layout)

    @cached_property
    def _digits(self) -> Digits:
        return Digits.of(self.codec, self.wide_limit)

    @cached_property
    def _parts(self) -> tuple[_Part, _Part]:
        """How the shared block and a pool's are laid out."""
        wide = torch.zeros(self.shared + self.pooled, dtype=torch.bool)
        wide[list(self.wide)] = True
        shared, pooled = wide.split([self.shared, self.pooled])
        return _Part(shared, self.weighted and self.shared > 0), _Part(pooled, self.weighted)

    @property
    def counts(self) -> int:
        """Count fields: one a pool; none where there is one pool, whose members are the survivors."""
        return self.pools if self.pools > 1 else 0

    def blocks(self, update: Tensor, pool: int, weight: float = 1.0) -> Blocks:
        """One client's vector from its change `[shared + pooled]`: shared part first.

        Raises:
            SecureSumError: a value is not finite.
        """
        steps = int(weight * self.limit * self.codec.scale)
        # As its field will say, so that what the sum is divided by is what its members were multiplied by.
        weight = steps / (self.limit * self.codec.scale) if self.weighted else weight
        changes = [weight * change.float() for change in update.split([self.shared, self.pooled])]
        plain = torch.cat([part.of_codec(change) for part, change in zip(self._parts, changes, strict=True)])
        integers = torch.from_numpy(self.codec.quantise(plain.numpy())) if len(plain) else torch.zeros(0, dtype=torch.int64)
        fields = integers.split([part.plain for part in self._parts])
        shared, pooled = (part.laid_out(own, change, steps, self._digits) for part, own, change in zip(self._parts, fields, changes, strict=True))
        head, pools = torch.zeros(self.counts, dtype=torch.int64), torch.zeros(self.pools, len(pooled), dtype=torch.int64)
        pools[pool] = pooled
        if self.counts:
            head[pool] = 1
        return Blocks(head, shared, pools)

    def cut(self, update: Tensor) -> float:
        """The share of a change's coordinates beyond their limits, which `blocks` cuts: of the plain ones or of the wide ones, the larger share."""
        wide = torch.cat([part.wide for part in self._parts])
        beyond = update.abs() > torch.where(wide, self._digits.limit, self.limit)
        return max(float(part.float().mean()) if len(part) else 0.0 for part in (beyond[~wide], beyond[wide]))

    def means(self, total: Blocks, survivors: int, minimum: int) -> tuple[Tensor, Tensor]:
        """Mean changes, float64: `[shared]` and `[K, pooled]`; zero for pools with fewer than `minimum` members, or without weight."""
        counts = total.head.double() if self.counts else torch.tensor([float(survivors)], dtype=torch.float64)
        members, blocks = (torch.tensor(float(survivors)), counts[:, None]), (total.shared, total.pools)
        values = [part.read(fields, self._digits, self.codec, most) for part, fields, most in zip(self._parts, blocks, members, strict=True)]
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


@dataclass(frozen=True)
class _Part:
    """One block's fields: plain coordinates, then the digits of wide ones, then the sum of weights.

    Attributes:
        wide: which coordinates are wide, bool `[coordinates]`.
        weighted: whether a sum of weights stands at the end.
    """

    wide: Tensor = field(repr=False)
    weighted: bool

    @cached_property
    def plain(self) -> int:
        """Coordinates that the codec makes fields of."""
        return int((~self.wide).sum())

    def of_codec(self, change: Tensor) -> Tensor:
        """The plain coordinates of a change.

        Raises:
            SecureSumError: a wide one is not finite; the codec looks at the others.
        """
        if not bool(self.wide.any()):
            return change
        if not bool(torch.isfinite(change[self.wide]).all()):
            remedy = "lower the learning rate, or skip the round"
            raise SecureSumError("a running statistic is not finite", field="update", value="(hidden)", remedy=remedy)
        return change[~self.wide]

    def laid_out(self, fields: Tensor, change: Tensor, weight: int, digits: Digits) -> Tensor:
        """The block of one client: what the codec made, digits of the rest of the change, and the weight in steps."""
        made = [fields]
        if bool(self.wide.any()):
            made.append(digits.written(change[self.wide]))
        if self.weighted:
            made.append(torch.tensor([weight]))
        return torch.cat(made) if len(made) > 1 else fields

    def read(self, fields: Tensor, digits: Digits, codec: Codec, members: Tensor) -> Tensor:
        """Sums `[..., coordinates]` in the update's units and order, float64, with the sum of weights (times the limit) at their end.

        Of wide coordinates no more is read than so many `members` can have sent: a digit alone may say more, and stay within its field.
        """
        if not bool(self.wide.any()):
            return torch.from_numpy(codec.dequantise(fields.numpy()))
        end = fields.shape[-1] - int(self.weighted)
        values = torch.empty(*fields.shape[:-1], len(self.wide) + int(self.weighted), dtype=torch.float64)
        values[..., len(self.wide) :] = torch.from_numpy(codec.dequantise(fields[..., end:].numpy()))
        of_change = values[..., : len(self.wide)]
        of_change[..., ~self.wide] = torch.from_numpy(codec.dequantise(fields[..., : self.plain].numpy()))
        most = members * digits.limit
        of_change[..., self.wide] = digits.read(fields[..., self.plain : end]).clamp(-most, most)
        return values


def _weighted(values: Tensor, limit: float) -> Tensor:
    """Rows of weighted sums with the sum of weights (times `limit`) at their end, divided by it; a row without weight gives zeros."""
    weight = values[:, -1:] / limit
    return torch.where(weight > 0, values[:, :-1] / weight.clamp_min(1e-12), torch.zeros_like(values[:, :-1]))
