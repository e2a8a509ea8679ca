"""What a kind of step is: four pure functions, and one that only a simulation runs.

A step is made from the plan alone. `form` needs no state; `ask` and `apply` need nothing but the
state, and what was opened; `answer` is one client's. A new kind of step is a class of this kind in
a file of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from secure_fl.config import OptimiserConfig, PoolsConfig, PretrainConfig
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.updates import Moved, Updates
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.summing import Opening, Summed
from secure_fl.secure_sum.grid import Blocks, Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


@dataclass(frozen=True)
class Answer:
    """A client's summand, and what a simulation reads off it beside."""

    blocks: Blocks
    seen: Seen


class Step(ABC):
    """A part of a run: a row of rounds in which clients are asked the same.

    Attributes:
        name: in forms, records and checkpoints.
        factory: makes the run's models and grids.
        facts: what everybody knows of the run.
    """

    name: ClassVar[str]

    def __init__(self, factory: Factory) -> None:
        self.factory, self.facts = factory, factory.facts

    @property
    def rounds(self) -> int:
        """How many rounds the step has, at most: one, unless a kind says otherwise."""
        return 1

    @abstractmethod
    def form(self, round_number: int) -> SumForm:
        """What everybody knows of a round's sum; rounds are counted from 0."""

    def enter(self, state: State) -> State:
        """What the first round begins with; the same again where it has begun."""
        return state

    @abstractmethod
    def ask(self, state: State) -> Any:
        """What clients are to compute in the round at `state.place`."""

    @abstractmethod
    def answer(self, ask: Any, client: Client, position: int) -> Answer:
        """One client's answer."""

    @abstractmethod
    def apply(self, state: State, opened: Summed) -> State:
        """What an opened sum makes of the state. The place is the program's to move."""

    def ended(self, state: State) -> bool:
        """Whether the step ends early, with the round that gave `state`."""
        return False

    def monitor(self, state: State, opened: Summed) -> Metrics:
        """What a round's record takes from its opened sum.

        Args:
            state: as the round began.
            opened: its sum.
        """
        return Metrics()

    def observe(
        self, state: State, opened: Summed, seen: Mapping[int, Seen], groups: Sequence[int | None]
    ) -> Metrics:
        """The record of a simulated round: the monitor's figures, and what is read off the clients.

        Args:
            state: as the round began.
            opened: its sum.
            seen: of every client that answered.
            groups: the known group of every client, by its number.
        """
        return self.monitor(state, opened)

    def on_grid(self, grid: Grid, minimum: int = 1) -> SumForm:
        """The form of a sum over everybody whose answers are not given again. What they hold stands
        still, or is noised anew.
        """
        opening = Opening(grid.codec.bound, minimum=minimum)
        return SumForm(self.name, self.everyone, grid.frame.shape, opening, repeatable=False)

    @property
    def everyone(self) -> tuple[int, ...]:
        """The numbers of all clients."""
        return tuple(range(self.facts.clients))


def sampled(
    facts: PublicFacts, name: str, settings: OptimiserConfig, round_number: int
) -> tuple[int, ...]:
    """A round's clients, ascending: the step's share of the roster, without replacement."""
    seed = facts.seed(name, "sample", round_number)
    drawn = torch.randperm(facts.clients, generator=torch.Generator().manual_seed(seed))
    return tuple(sorted(drawn[: settings.cohort_size(facts.clients)].tolist()))


class UpdateStep(Step):
    """A share of the clients trains in each round, and models move by their mean update. The norm
    bound of client-level privacy, where it adapts, is a fact of the state.
    """

    @property
    @abstractmethod
    def settings(self) -> PretrainConfig | PoolsConfig:
        """The step's table of the configuration."""

    @property
    def minimum(self) -> int:
        """Members without whom a protected sum's pool stays closed."""
        return 1

    @cached_property
    def updates(self) -> Updates:
        """How changes of models are summed."""
        return Updates.of(self.factory, self.name, self.minimum)

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def form(self, round_number: int) -> SumForm:
        cohort = sampled(self.facts, self.name, self.settings, round_number)
        opening = self.updates.opening(round_number)
        return SumForm(self.name, cohort, self.updates.shape, opening, repeatable=True)

    def bound(self, state: State) -> float | None:
        """The round's norm bound, where it adapts."""
        found: float | None = state.facts.get(self._bound_fact, self.updates.first_bound)
        return found

    def next_bound(self, moved: Moved) -> dict[str, float]:
        """The next round's, as a fact of the state; none where it does not adapt."""
        return {} if moved.bound is None else {self._bound_fact: moved.bound}

    @property
    def _bound_fact(self) -> str:
        return f"{self.name}.bound"
