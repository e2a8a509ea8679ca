"""How the updates of one step are summed: as which integers, by which rules, to which effect.

With client-level privacy its mechanism says all of it; otherwise a `Grid` does, whatever protects
the sum.

**How far clients differ.** Without differential privacy, and where all clients are in one sum, each
update carries its squared length, as one more coordinate of its pool's block: opened with it, under
the same minimum, and as new in every round as the update is. Beside the mean update it says how
much of the updates' size the clients have in common. With differential privacy it is off: of noised
updates it would measure the noise, and of bare ones it would be a release of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.federation.factory.client_plan import ADAPTATION
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.grouping import Grouping
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.summing import Opening, Summed
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Grid
from secure_fl.seeds import derive_seed


@dataclass(frozen=True)
class Moved:
    """How models move by an opened sum of updates.

    Attributes:
        shared, pooled: mean changes, float64 `[S]` and `[K, P]`; zero for pools that stayed closed.
        bound: the next round's norm bound, where it adapts.
    """

    shared: Tensor = field(repr=False)
    pooled: Tensor = field(repr=False)
    bound: float | None = None


@dataclass(frozen=True)
class Updates:
    """One step's updates: each a change `[S + P]`, its shared part first, in the block of its pool.

    Attributes:
        name: of the step.
        grid: how changes become integers without client-level privacy.
        level: client-level privacy's mechanism; None without it.
        grouping: how updates are summed in groups; None where all clients are in one sum.
        minimum: members without whom a pool stays closed.
        seed: of the run, by which groups are drawn.
        compared: whether updates carry their squared length, the last coordinate of `grid`.
    """

    name: str
    grid: Grid
    level: ClientLevel | None
    grouping: Grouping | None
    minimum: int
    seed: int
    compared: bool = False

    @classmethod
    def of(cls, factory: Factory, name: str, minimum: int) -> Updates:
        """How updates of `pretrain` or `cluster` are summed. `minimum` is for sums that the server
        does not read anyway.
        """
        config, plan, grid = factory.facts.config, factory.client_plan, factory.grid(name)
        grouping = Grouping.of(config.security)
        compared = config.privacy.unit == "none" and grouping is None
        if compared:
            wide = (*grid.wide, grid.shared + grid.pooled)
            grid = replace(grid, pooled=grid.pooled + 1, wide=wide)
        level, least = plan.of(name) if plan else None, minimum if factory.facts.sums_only else 1
        return cls(name, grid, level, grouping, least, config.seed, compared)

    @cached_property
    def shape(self) -> BlockShape:
        """The shape of the integers that a client sends."""
        return (self.grid if self.level is None else self.level).frame.shape

    def opening(self, round_number: int) -> Opening:
        """When the round's sum may be opened."""
        if self.level is not None:
            level, unit = self.level, max(1, self.level.count_unit)
            bounds = (*level.largest_fields, level.noise_margin)
            return Opening(*bounds, fewest=level.n_min, minimum=level.minimum, count_unit=unit)
        opening = Opening(self.grid.codec.bound, minimum=self.minimum)
        if self.grouping is None:
            return opening
        seed = derive_seed(self.seed, self.name, "sum in groups", round_number)
        group_seed = seed.to_bytes(8, "big")
        return replace(opening, group_size=self.grouping.size, group_seed=group_seed)

    @property
    def first_bound(self) -> float | None:
        """The first round's norm bound, where it adapts."""
        adapts = self.level is not None and self.level.bit_noise is not None
        return self.level.bound if adapts and self.level is not None else None

    def moved(self, opened: Summed, bound: float | None) -> Moved:
        """How models move by an opened sum. Raises PrivacyError: fewer survivors than the noise was
        made for.

        Args:
            opened: the sum.
            bound: the round's norm bound, where it adapts.
        """
        if self.level is None and self.grouping is None:
            shared, pooled = self.grid.means(opened.total, opened.survivors, self.minimum)
            return Moved(shared, pooled[:, :-1] if self.compared else pooled)
        if self.level is None and self.grouping is not None:
            return Moved(*self.grouping.means(self.grid, opened.groups, self.minimum)[:2])
        assert self.level is not None
        head = self.level.open_head(opened.total.head, opened.survivors)
        means = self.level.open_pools(opened.total, head, bound)
        if head.inside is None or bound is None:
            return Moved(*means)
        return Moved(*means, ADAPTATION.moved(bound, head.inside))

    def summand(self, change: Tensor) -> Tensor:
        """A client's change as it goes into the sum, with its squared length where it carries it.

        Of what all clients sum, and of running statistics, which have the data's units, nothing is
        in the length.
        """
        if not self.compared:
            return change
        limit, own = self.grid.limit, change[self.grid.shared :][self._own]
        square = own.clamp(-limit, limit).double().square().sum()
        return torch.cat([change, square.to(change.dtype)[None]])

    def differences(self, opened: Summed) -> Metrics:
        """How far the clients of each pool differ: 0 where their updates are alike, 1 where they
        have nothing in common; None of a pool that stayed closed, or has one client.

        It is 1 - |mean update|² / mean |update|², times m / (m - 1) for m clients, which takes off
        what the mean of m unlike updates has of each. Clients that count by a weight count by it
        in both means.
        """
        if not self.compared:
            return Metrics()
        _, pooled = self.grid.means(opened.total, opened.survivors, self.minimum)
        alike = pooled[:, :-1][:, self._own].square().sum(1) / pooled[:, -1].clamp_min(1e-30)
        measured = zip(alike.tolist(), pooled[:, -1].tolist(), self.counts(opened), strict=True)
        return Metrics(
            differences=tuple(
                min(1.0, max(0.0, (1 - same) * m / (m - 1))) if square > 0 and m > 1 else None
                for same, square, m in measured
            )
        )

    @cached_property
    def _own(self) -> Tensor:
        """Which of a pool's coordinates are compared, bool `[P]`."""
        own = torch.ones(self.grid.shared + self.grid.pooled, dtype=torch.bool)
        own[list(self.grid.wide)] = False
        return own[self.grid.shared : -1]

    def counts(self, opened: Summed) -> list[int]:
        """Members of each pool, as the sum says. With client-level privacy to the nearest number
        that its noise leaves.
        """
        if self.level is None:
            return counts_on(self.grid, opened)
        counts = self.level.open_head(opened.total.head, opened.survivors).counts
        return [max(0, round(float(count))) for count in counts]

    def group_metrics(self, opened: Summed) -> Metrics:
        """How many groups opened each pool, and why some opened nothing. Empty where nothing is
        summed in groups.
        """
        if self.grouping is None:
            return Metrics()
        sums = ((group.total, group.survivors, self.minimum) for group in opened.groups)
        heard = [self.grid.heard(*each)[1] for each in sums]
        opened_by = tuple(torch.stack(heard).sum(0).tolist())
        return Metrics(groups_opened=opened_by, groups_left_out=opened.left_out or None)


def counts_on(grid: Grid, opened: Summed) -> list[int]:
    """Members of each pool: exact, since every count is opened."""
    return [int(count) for count in opened.total.head] if grid.counts else [opened.survivors]
