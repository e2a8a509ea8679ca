"""The grid: one client's update as bounded integers in blocks, and what the sum of all blocks says.

A coordinate becomes a whole number of steps (`fixed_point`) and stands in the block of the pool
that its client chose; the blocks of all other pools hold zeros. `Frame` says where the integers
lie. `Grid` fills it with updates without noise; client-level privacy, which adds noise, fills one
of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.fixed_point import Codec, Digits
from secure_fl.secure_sum.layout import FieldLayout


@dataclass(frozen=True)
class Blocks:
    """One client's vector, or a sum of them, int64.

    Attributes:
        head: `[H]`, opened first: a count for each pool (none when K = 1, where the survivors are
            public), then the field of the yes or no where the frame has one.
        shared: `[S]`, the part that all pools share.
        pools: `[K, W]`, each opened where its count allows.
    """

    head: Tensor = field(repr=False)
    shared: Tensor = field(repr=False)
    pools: Tensor = field(repr=False)

    @property
    def vector(self) -> BlockVector:
        """The same integers, as the secure sum takes them."""
        shared = self.shared.numpy() if len(self.shared) else None
        return BlockVector(self.head.numpy(), [row.numpy() for row in self.pools], shared)

    def __add__(self, other: Blocks) -> Blocks:
        pools = self.pools + other.pools
        return Blocks(self.head + other.head, self.shared + other.shared, pools)


@dataclass(frozen=True)
class Counted:
    """What the head of a sum says.

    Attributes:
        survivors: clients whose vectors are in the sum; public.
        counts: members of each pool, float64 `[K]`; the survivors when K = 1.
        passing: which pools have enough members, bool `[K]`.
        inside: share of survivors that said yes, in [0, 1]; None where the frame asks nothing.
    """

    survivors: int
    counts: Tensor = field(repr=False)
    passing: Tensor = field(repr=False)
    inside: float | None


@dataclass(frozen=True)
class Frame:
    """Where one client's integers lie.

    Attributes:
        pools: K blocks, of which a client fills one.
        shared, pooled: fields that all clients sum, and fields of each block.
        unit: what one member adds to its pool's count: more than 1 where noise is added to it.
        bit: what a yes adds to the last field of the head, and a no takes off; 0 for no such field.
    """

    pools: int
    shared: int
    pooled: int
    unit: int = 1
    bit: int = 0

    @property
    def counts(self) -> int:
        """Number of count fields: none where there is one pool, whose members are the survivors."""
        return self.pools if self.pools > 1 else 0

    @property
    def head(self) -> int:
        """How many fields the head has: the counts, and one for the bit where it is carried."""
        return self.counts + bool(self.bit)

    @property
    def fields(self) -> int:
        """How many fields the whole vector has: head, shared and all pools."""
        return self.head + self.shared + self.pools * self.pooled

    @property
    def shape(self) -> BlockShape:
        """The shape of every client's vector."""
        counted = self.pools > 1
        return BlockShape(self.pools, self.pooled, self.shared, self.head, counted=counted)

    def cut(self, flat: Tensor) -> Blocks:
        """A vector of all fields, `[fields]`, as blocks that share its memory."""
        head, shared, pools = flat.split([self.head, self.shared, self.pools * self.pooled])
        return Blocks(head, shared, pools.view(self.pools, self.pooled))

    def blank(self, pool: int, yes: bool | None = None) -> Blocks:
        """The vector of a client that chose `pool`: its head, and zeros where its integers go.
        `yes` is what the client says in the head's last field; None where the frame has none.
        Raises SecureSumError: no such pool, or a yes or no that does not fit the frame.
        """
        if not 0 <= pool < self.pools:
            remedy = f"choose among 0..{self.pools - 1}"
            raise SecureSumError("no such pool", "pool", "not shown", remedy)
        if (yes is None) != (self.bit == 0):
            problem = "a bit is missing, or there is no field for it"
            remedy = "pass it where the frame has a bit, and there alone"
            raise SecureSumError(problem, "yes", "not shown", remedy)
        made = self.cut(torch.zeros(self.fields, dtype=torch.int64))
        if self.counts:
            made.head[pool] = self.unit
        if yes is not None:
            made.head[-1] = self.bit if yes else -self.bit
        return made

    def counted(self, head: Tensor, survivors: int, minimum: int) -> Counted:
        """What a summed head `[H]` says of its survivors; a pool passes at `minimum` members."""
        inside = None
        if self.bit:
            inside = min(1.0, max(0.0, 0.5 + float(head[-1]) / (2 * self.bit * survivors)))
        members, unit = head[: self.counts], self.unit
        if not self.counts:
            members, unit = torch.tensor([survivors]), 1
        return Counted(survivors, members.double() / unit, members >= minimum * unit, inside)


def means(shared: Tensor, pools: Tensor, counted: Counted, minimum: int) -> tuple[Tensor, Tensor]:
    """Sums `[S]` over all survivors and `[K, W]` over each pool's members, float64, as means. A
    count below `minimum` divides as if it were that; a pool that does not pass gives zeros.
    """
    divisor = counted.counts.clamp_min(minimum)[:, None]
    of_pools = torch.where(counted.passing[:, None], pools / divisor, 0.0)
    return shared / counted.survivors, of_pools


@dataclass(frozen=True)
class Grid:
    """Fixed point in blocks, for one kind of sum without noise.

    Guarantee: no sum of at most `clients` vectors of `blocks` overflows a field.
    Assumes: clients follow the grid, since under masks nobody can check a coordinate.
    Not covered: what one that does not spoils, which is as much of a field as all clients together
    may fill.

    Attributes:
        clients: who may be in a sum, at most.
        shared, pooled: coordinates that all clients sum, and coordinates of each of the K `pools`.
        limit: coordinates are cut to ± this.
        weighted: whether clients count by a weight within [0, 1] instead of alike.
        layout: fields in a slot of the secure sum.
        wide: which coordinates are cut to ± `wide_limit` instead, as places in the update,
            ascending: running statistics, whose changes have the units of the data.

    Raises:
        SecureSumError: where a grid is used that no useful number of steps makes safe.
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
        """The finest grid on which no field can overflow; digits of wide coordinates fit it too."""
        return Codec.finest(self.clients, self.limit, self.layout)

    @cached_property
    def frame(self) -> Frame:
        """Where the fields lie; it follows from the settings, before any client answers."""
        shared, pooled = (part.fields for part in self._parts)
        return Frame(self.pools, shared, pooled)

    @property
    def counts(self) -> int:
        """Number of count fields in the head."""
        return self.frame.counts

    @cached_property
    def _digits(self) -> Digits:
        return Digits.of(self.codec, self.wide_limit)

    @cached_property
    def _parts(self) -> tuple[_Part, _Part]:
        """How the shared block and a pool's are laid out."""
        wide = torch.zeros(self.shared + self.pooled, dtype=torch.bool)
        wide[list(self.wide)] = True
        shared, pooled = wide.split([self.shared, self.pooled])
        first = _Part(shared, self.weighted and self.shared > 0, self.codec, self._digits)
        return first, _Part(pooled, self.weighted, self.codec, self._digits)

    def blocks(self, update: Tensor, pool: int, weight: float = 1.0) -> Blocks:
        """One client's vector from its change `[shared + pooled]`: shared part first. Raises
        SecureSumError: another length, no such pool, or a value that is not finite.
        """
        if update.shape != (self.shared + self.pooled,):
            value, remedy = tuple(update.shape), f"pass shape [{self.shared + self.pooled}]"
            raise SecureSumError("not one update", "update", value, remedy)
        full = self.limit * self.codec.scale
        steps = int(weight * full)
        if self.weighted:
            # As its field will say: a sum is divided by what its members were multiplied by.
            weight = steps / full
        shared, pooled = (weight * update.float()).split([self.shared, self.pooled])
        made = self.frame.blank(pool)
        self._parts[0].write(shared, steps, made.shared)
        self._parts[1].write(pooled, steps, made.pools[pool])
        return made

    def cut(self, update: Tensor) -> float:
        """The share of a change's coordinates beyond their limits, which `blocks` cuts. Of the
        plain ones or of the wide ones, the larger share.
        """
        wide = torch.cat([part.wide for part in self._parts])
        beyond = update.abs() > torch.where(wide, self._digits.limit, self.limit)
        kinds = (beyond[~wide], beyond[wide])
        return max(float(kind.float().mean()) if len(kind) else 0.0 for kind in kinds)

    def means(self, total: Blocks, survivors: int, minimum: int) -> tuple[Tensor, Tensor]:
        """Mean changes, float64: `[shared]` and `[K, pooled]`. Zero for pools with fewer than
        `minimum` members, or without weight.
        """
        counted = self.frame.counted(total.head, survivors, minimum)
        shared = self._parts[0].read(total.shared, torch.tensor(float(survivors)))
        pools = self._parts[1].read(total.pools, counted.counts[:, None])
        if not self.weighted:
            return means(shared, pools, counted, minimum)
        shared = _weighted(shared[None], self.limit)[0] if self.shared else shared
        return shared, torch.where(counted.passing[:, None], _weighted(pools, self.limit), 0.0)

    def heard(self, total: Blocks, survivors: int, minimum: int) -> tuple[bool, Tensor]:
        """Whether a sum says anything about the shared part, and about each pool, bool `[K]`.

        About a pool it does where it has `minimum` members, and weight where clients count by a
        weight (idle members have none).
        """
        enough = self.frame.counted(total.head, survivors, minimum).passing
        if not self.weighted:
            return bool(self.shared), enough
        return bool(self.shared) and int(total.shared[-1]) > 0, enough & (total.pools[:, -1] > 0)

    def sums(self, total: Blocks) -> Tensor:
        """Sum of an unweighted single block, float64 `[pooled]`."""
        return self.codec.dequantise(total.pools[0])


@dataclass(frozen=True)
class _Part:
    """One block's fields: plain coordinates, digits of the wide ones, and the sum of weights.

    Attributes:
        wide: which coordinates are wide, bool `[coordinates]`.
        weighted: whether a sum of weights stands at the end.
    """

    wide: Tensor = field(repr=False)
    weighted: bool
    codec: Codec
    digits: Digits

    @cached_property
    def _any(self) -> bool:
        return bool(self.wide.any())

    @cached_property
    def _plain(self) -> int:
        return int((~self.wide).sum())

    @property
    def fields(self) -> int:
        """How many fields the block has: a wide coordinate takes one for each digit."""
        return self._plain + (len(self.wide) - self._plain) * self.digits.count + self.weighted

    def write(self, change: Tensor, weight: int, out: Tensor) -> None:
        """Fill `out` `[fields]` from a client's change `[coordinates]` and its weight in steps."""
        plain = change[~self.wide] if self._any else change
        self.codec.quantise(plain, out[: self._plain])
        if self._any:
            out[self._plain : self.fields - self.weighted] = self.digits.written(change[self.wide])
        if self.weighted:
            out[-1] = weight

    def read(self, fields: Tensor, members: Tensor) -> Tensor:
        """Sums `[..., coordinates]` in the update's units and order, float64.

        The sum of weights, times the limit, stands at their end. Of wide coordinates no more is
        read than so many `members` can have sent: a digit alone may say more, and stay within its
        field.
        """
        if not self._any:
            return self.codec.dequantise(fields)
        end = fields.shape[-1] - int(self.weighted)
        width = len(self.wide)
        values = torch.empty(*fields.shape[:-1], width + int(self.weighted), dtype=torch.float64)
        values[..., width:] = self.codec.dequantise(fields[..., end:])
        of_change = values[..., :width]
        of_change[..., ~self.wide] = self.codec.dequantise(fields[..., : self._plain])
        most = members * self.digits.limit
        digits = self.digits.read(fields[..., self._plain : end])
        of_change[..., self.wide] = digits.clamp(-most, most)
        return values


def _weighted(values: Tensor, limit: float) -> Tensor:
    """Rows of weighted sums over the sum of weights (times `limit`) at their end, zero without."""
    weight = values[:, -1:] / limit
    return torch.where(weight > 0, values[:, :-1] / weight.clamp_min(1e-12), 0.0)
