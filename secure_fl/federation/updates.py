"""How the updates of one step are summed: as which integers, by which rules, to which effect.

With client-level privacy its mechanism says all of it; otherwise a `Grid` does, whatever protects
the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.federation.client_plan import ADAPTATION
from secure_fl.federation.factory import Blueprint
from secure_fl.federation.grouping import Grouping
from secure_fl.federation.record import Metrics
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
    """

    name: str
    grid: Grid
    level: ClientLevel | None
    grouping: Grouping | None
    minimum: int
    seed: int

    @classmethod
    def of(cls, blueprint: Blueprint, name: str, minimum: int) -> Updates:
        """How updates of `pretrain` or `cluster` are summed.

        `minimum` is for sums that the server does not read anyway.
        """
        config, plan = blueprint.config, blueprint.client_plan
        return cls(
            name,
            blueprint.grid(name),
            None if plan is None else plan.of(name),
            Grouping.of(config.security),
            minimum if blueprint.secure else 1,
            config.seed,
        )

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
        """How models move by an opened sum.

        Args:
            opened: the sum.
            bound: the round's norm bound, where it adapts.

        Raises:
            PrivacyError: fewer survivors than the noise was made for.
        """
        if self.level is None and self.grouping is None:
            return Moved(*self.grid.means(opened.total, opened.survivors, self.minimum))
        if self.level is None and self.grouping is not None:
            return Moved(*self.grouping.means(self.grid, opened.groups, self.minimum)[:2])
        assert self.level is not None
        head = self.level.open_head(opened.total.head, opened.survivors)
        means = self.level.open_pools(opened.total, head, bound)
        if head.inside is None or bound is None:
            return Moved(*means)
        return Moved(*means, ADAPTATION.moved(bound, head.inside))

    def counts(self, opened: Summed) -> list[int]:
        """Members of each pool, as the sum says.

        With client-level privacy to the nearest number that its noise leaves.
        """
        if self.level is None:
            return counts_on(self.grid, opened)
        counts = self.level.open_head(opened.total.head, opened.survivors).counts
        return [max(0, round(float(count))) for count in counts]

    def group_metrics(self, opened: Summed) -> Metrics:
        """How many groups opened each pool, and why some opened nothing.

        Empty where nothing is summed in groups.
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
