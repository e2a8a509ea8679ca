"""The game of an example that is alone, as checks of released sums of examples play it.

A canary is an example at a client of the run whose other places are empty: by its coin it is there,
or its place is empty too (zero-out). It is scored by the length of what the client sent along the
canary's own part of it. Each answer has fresh noise, as another client's would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.bounds.result import Vector
from secure_fl.audit.checks.verdicts import SHARE, Findings
from secure_fl.audit.game import Claim, SealedAssignment, all_bounds
from secure_fl.data.dataset import Dataset
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import Event

PLACES = 2
"""Examples that a client of the game has, as everybody knows."""
_ERROR = 5 * SHARE
"""Of one bound."""


class Sent(NamedTuple):
    """One client's answer.

    Attributes:
        part: what the canary adds, without noise; float64 `[fields]`.
        total: what was sent; float64 `[fields]`.
        charged: for it.
    """

    part: Tensor
    total: Tensor
    charged: Iterable[Event]


def lone(own: Dataset, x: Tensor, y: Tensor, *, there: bool = True) -> Dataset:
    """An example in the first of a client's places, or in none, and nobody in the others."""
    rows = torch.full((PLACES, *x.shape), torch.nan)
    if there:
        rows[0] = x
    data = replace(own, x=rows, y=y.expand(PLACES).clone(), client=None)
    return replace(data, split=None, group=None)


@dataclass(frozen=True)
class Played:
    """A game that is over, its coins still sealed.

    Attributes:
        scores: of each canary.
        noise: what was sent less what was put in, of all answers one after the other.
        charged: everything that was.
        longest: of all canaries' parts.
    """

    assignment: SealedAssignment = field(repr=False)
    scores: Vector = field(repr=False)
    noise: Tensor = field(repr=False)
    charged: frozenset[Event]
    longest: float

    @classmethod
    def of(cls, canaries: int, sent: Callable[[bool], Sent], fields: int | None = None) -> Played:
        """Play it.

        Args:
            sent: whether a canary is there -> what its client sends.
            fields: of an answer whose noise is kept; all by default.
        """
        assignment, noise, charged = SealedAssignment.sealed(canaries), list[Tensor](), set[Event]()
        scores, longest = np.empty(canaries), 0.0
        for number, there in enumerate(assignment.there.tolist()):
            part, total, events = sent(there)
            charged.update(events)
            length = float(part.norm())
            scores[number] = float(total @ part) / max(length, 1e-12)
            noise.append((total - part if there else total)[:fields])
            longest = max(longest, length)
        return cls(assignment, scores, torch.cat(noise), frozenset(charged), longest)

    def judge(
        self, event: Event, moved: float, deviation: float, delta: float, name: str, found: Findings
    ) -> None:
        """Open the coins, and take in all bounds and the shift.

        Args:
            event: that a canary is charged at least.
            moved, deviation: by how much a canary may move what is sent, and of the noise on it.
            name: of what is sent.
        """
        claimed = epsilon([event], delta, Adjacency.ZERO_OUT)
        claim, coins = Claim(claimed, delta, (moved, deviation)), self.assignment.open(self.scores)
        bounds = all_bounds(self.scores, coins, claim, 1 - _ERROR, _ERROR)
        found.game(bounds, claimed, 1 - _ERROR, name)
        found.shift(bounds, f"shift by one example of the {name}, in deviations", moved / deviation)
