"""What clients would release under example-level privacy, planned before anything trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from secure_fl.federation.factory.example_plan import ExamplePlan, plan_examples
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.privacy.accounting import Charge, planned_epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import rounds_within
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Budget

if TYPE_CHECKING:
    from secure_fl.run import Federation

_MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class ClientRow:
    """One client's plan.

    Attributes:
        client: its number.
        examples: that it trains on; public under privacy, or a bound.
        epsilon: of all that it would release, and of what an earlier run released of it.
        given: whether the noise is set by the configuration.
    """

    client: int
    examples: int
    plan: ExamplePlan
    epsilon: float
    budget: Budget
    given: bool

    def rounds_that_fit(self) -> int | None:
        """Pre-training rounds that the budget holds; those set, where noise was made for them."""
        steps, noise = self.plan.pretrain, self.plan.noise
        if steps is None:
            return None
        if not self.given:
            return steps.rounds
        others = self.plan.fixed
        if self.plan.pools is not None:
            others = (*others, self.plan.pools.planned(noise, self.plan.pools.rounds))
        return _rounds(self.budget, steps.planned(noise), tuple(others))


@lru_cache(maxsize=8192)
def _rounds(budget: Budget, each: Event, others: tuple[Event, ...]) -> int:
    return rounds_within(budget, [each], already=others, most=_MOST_ROUNDS)


def client_plans(federation: Federation) -> Iterator[ClientRow]:
    """Every client's plan, one after the other, as the run itself will make it; what is found here
    is not searched for again in this process.

    Raises:
        PrivacyError: no noise keeps a client within the budget; it says which ε can be reached.
    """
    config = federation.config
    privacy, adjacency = config.privacy, Adjacency(config.privacy.adjacency)
    budget = Budget(privacy.epsilon, privacy.delta, PrivacyUnit.EXAMPLE, adjacency)
    gate = BudgetGate(config.privacy, None)
    if config.pretrain.mode == "load":
        gate.load_encoder(
            RunFolder.open(Path(config.pretrain.load_from or "")), len(federation.clients)
        )
    for client in federation.clients:
        histories = gate.already(client.id)
        plan = plan_examples(federation.factory, len(client.train), client.train.labels, histories)
        planned = [Charge(event, budget.adjacency) for event in plan.events()]
        spent = max(
            planned_epsilon([*history, *planned], config.privacy.delta) for history in histories
        )
        yield ClientRow(
            client.id, len(client.train), plan, spent, budget, config.privacy.noise is not None
        )
