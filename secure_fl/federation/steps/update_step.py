"""What steps have in common whose rounds sum updates of models."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

from secure_fl.config import PoolsConfig, PretrainConfig
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Step, sampled
from secure_fl.federation.updates import Moved, Updates


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
        return Updates.of(self.blueprint, self.name, self.minimum)

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def form(self, round_number: int) -> SumForm:
        cohort = sampled(self.blueprint, self.name, self.settings, round_number)
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
