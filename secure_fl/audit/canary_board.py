"""Who the canaries of `clip_canaries` are, and what stands for each of them in a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Board:
    """Who is where.

    Attributes:
        canaries: K.
        included: of each, whether it is in.
        opposite: whether those that are out contribute the opposite instead of nothing.
        examples: n of the index set.
        dimension: width of z.
        views: of an example, where it has views.
    """

    canaries: int
    included: NDArray[np.bool_] = field(repr=False)
    opposite: bool
    examples: int
    dimension: int
    views: int = 2

    @property
    def coordinates(self) -> int:
        """Those of canaries and as many in which nobody is."""
        return 2 * self.canaries

    @cached_property
    def places(self) -> Tensor:
        """Of the canaries' coordinates and then the empty ones: mixed, so that noise which repeats
        within a release shows in the empty ones alone.
        """
        return torch.randperm(self.coordinates, generator=torch.Generator().manual_seed(0))

    def missing(self, index: Tensor) -> Tensor:
        """Which of these examples are not there."""
        out = torch.from_numpy(~self.included) & (not self.opposite)
        return torch.cat([out, torch.zeros(1, dtype=torch.bool)])[self._number(index)]

    def _number(self, index: Tensor) -> Tensor:
        """0 … K − 1 for canaries, K for all others."""
        return index.clamp(max=self.canaries)

    def rows(self, index: Tensor, kind: str) -> Tensor:
        """`[..., R, 2 + 2D]` of these examples: place among the w, code, base, direction."""
        number, D = self._number(index), self.dimension
        there = torch.from_numpy(np.append(self.included, True))[number]
        canary: Tensor = number < self.canaries
        sign = torch.where(canary, torch.where(there, 1.0, -1.0), 0.0)
        place = torch.where(canary, 1 + self.places[number], 0)
        code = torch.where(canary, number + 1 + self.canaries * ~there, 0)
        first, second = torch.eye(D)[:2]
        made = {
            "views": [(first, -second), *[(second, 0 * second)] * (self.views - 1)],
            "labels": [(0 * first, -first)],
            "hidden": [(first, first)],
        }
        parts = [
            torch.cat(
                [
                    place[..., None].float(),
                    code[..., None].float(),
                    base.expand(*index.shape, D),
                    sign[..., None] * direction,
                ],
                -1,
            )
            for base, direction in made[kind]
        ]
        rows = torch.stack(parts, -2)
        return rows.masked_fill(self.missing(index)[..., None, None], torch.nan)
