"""The rounds by which a run goes on: what clients will release in them, and whether the budget
holds that. Noise stays what it was calibrated to when the run began, so more rounds cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from secure_fl.config import FederationConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.factory.example_plan import (
    ExamplePlan,
    choice_of,
    chooses_by_loss,
    chooses_in,
    plan_examples,
)
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.steps.step import sampled
from secure_fl.privacy.accounting import Charge, within
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Charges

LENGTHS = {"pretrain": "pretrain.rounds", "cluster": "pools.rounds"}
"""Settings that may differ where a run goes on, by the phase whose rounds they count."""


def length_of(config: FederationConfig, phase: str) -> int:
    """How many rounds a phase of `LENGTHS` is asked for."""
    return config.pretrain.rounds if phase == "pretrain" else config.pools.rounds


@dataclass(frozen=True)
class RoundsToCome:
    """The rounds of one phase that are not done yet.

    Attributes:
        phase: that goes on.
        begun: rounds of the phase that are done.
        sizes: examples, and those with labels, of every client.
        again: what has to be released anew before, because what was stored of it is gone.
        chosen: whether clients know the pools that they chose; otherwise those who choose by loss
            do so in the first round to come.
    """

    factory: Factory
    gate: BudgetGate
    phase: str
    begun: int
    sizes: Mapping[int, tuple[int, int]]
    again: Sequence[Event]
    chosen: bool

    def check_budget(self) -> None:
        """Refuse more rounds than the budget holds, before any of them begins. Raises PrivacyError:
        naming the length, and how many rounds still fit.
        """
        budget, asked = self.gate.budget, length_of(self.factory.facts.config, self.phase)
        if budget is None or self._fit(asked):
            return
        held = _most(self._fit, self.begun, asked)
        problem = (
            f"the budget ε = {budget.epsilon:g} holds {held - self.begun} more rounds, with the "
            "noise that the run was made with"
        )
        remedy = f"at most {held}, or a new run whose noise is made for more"
        raise PrivacyError(problem, LENGTHS[self.phase], asked, remedy)

    def _fit(self, rounds: int) -> bool:
        """Whether every client's budget holds the phase's rounds up to so many."""
        budget, ledger, tried = self.gate.budget, self.gate.ledger, set[Charges]()
        if budget is None or ledger is None:
            return True
        for client in self.sizes:
            coming = self._released(client, rounds)
            for history in ledger.histories(budget.unit, client, budget.adjacency):
                charges = (*history, *(Charge(event, budget.adjacency) for event in coming))
                if charges not in tried and not within(charges, budget.delta, budget.epsilon):
                    return False
                tried.add(charges)
        return True

    def _released(self, client: int, rounds: int) -> list[Event]:
        """All that a client will release until so many rounds are done."""
        if rounds <= self.begun:
            return []
        called = [n for n in range(self.begun, rounds) if client in self._calls[n]]
        return [*self.again, *(event for n in called for event in self._released_in(client, n))]

    @cached_property
    def _calls(self) -> dict[int, tuple[int, ...]]:
        """Who is called in each round to come."""
        facts, config = self.factory.facts, self.factory.facts.config
        settings = config.pretrain if self.phase == "pretrain" else config.pools
        coming = range(self.begun, length_of(config, self.phase))
        return {number: sampled(facts, self.phase, settings, number) for number in coming}

    def _released_in(self, client: int, number: int) -> list[Event]:
        """What a client will release in one round; in the first one to come also a choice out of
        turn, where its pool is not known.
        """
        if not self.gate.covers_run:
            return []
        config, clients = self.factory.facts.config, self.factory.client_plan
        if clients is not None:
            return [clients.of(self.phase).event(1)]
        plan = self._plans[client]
        steps = plan.pretrain if self.phase == "pretrain" else plan.pools
        made: list[Event] = [] if steps is None else [steps.planned(plan.noise)]
        anew = number == self.begun and not self.chosen and chooses_by_loss(config)
        if self.phase == "cluster" and (chooses_in(config, number) or anew):
            made.append(choice_of(config, 1).event(1))
        return made

    @cached_property
    def _plans(self) -> dict[int, ExamplePlan]:
        """Every client's plan of example-level privacy."""
        return {
            client: plan_examples(self.factory, *size, self.gate.already(client))
            for client, size in self.sizes.items()
        }


def _most(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number that fits, from `low`, which does, to below `high`, which does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
