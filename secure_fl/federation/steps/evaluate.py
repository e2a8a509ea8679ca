"""Every client chooses among the final pools and tests its choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite, sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secure_fl.federation.asks import PoolScore, ScorePools
from secure_fl.federation.factory.updates import counts_on
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.observe import Seen, of_choices
from secure_fl.federation.program import SumForm
from secure_fl.federation.run_folder.metrics import Metrics, SummedTest
from secure_fl.federation.state import State
from secure_fl.federation.steps.pools import get_guide, get_pools
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.pools.monitor import pool_health
from secure_fl.secure_sum.grid import Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client

_LARGEST_LOSS = 64.0
_FIELDS = 4
"""Of a pool: tested clients, their accuracy, its square, and their loss over the largest."""


class Evaluate(Step):
    """Sums of test scores, a block a pool. No state follows from them.

    **What its sums show.** How many clients chose each pool, as every round of clustering does, and
    of a pool with enough members the mean and the spread of their accuracies and their mean loss:
    once, at the end, of test examples. Under differential privacy it is left out.
    """

    name = "evaluate"

    @staticmethod
    def is_summed(facts: PublicFacts) -> bool:
        """Whether a run sums test scores. Without differential privacy, where metrics are asked for
        and some sum is over everybody.
        """
        config, clients = facts.config, facts.clients
        everyone = not facts.sums_only or clients in config.cohorts(clients)
        return config.privacy.unit == "none" and config.evaluate.enabled and everyone

    @cached_property
    def grid(self) -> Grid:
        """How a client's scores become integers: four fields for each pool, the first a count."""
        return self.factory.unit_grid(_FIELDS, self.facts.config.pools.count)

    def form(self, round_number: int) -> SumForm:
        minimum = self.facts.config.security.min_pool_clients
        return self.on_grid(self.grid, minimum if self.facts.sums_only else 1)

    def ask(self, state: State) -> ScorePools:
        return ScorePools(get_pools(state), get_guide(state))

    def answer(self, ask: ScorePools, client: Client, position: int) -> Answer:
        score = client.protection.choose(ask, position)
        return Answer(self.grid.blocks(_fields(score), score.choice), Seen(score=score))

    def apply(self, state: State, opened: Summed) -> State:
        return state

    def monitor(self, state: State, opened: Summed) -> Metrics:
        counts = counts_on(self.grid, opened)
        sums = self.grid.codec.dequantise(opened.total.pools)
        health = pool_health(counts, config=self.facts.config)
        return Metrics(pools=health, tested=tuple(_figures(row) for row in sums))

    def observe(
        self, state: State, opened: Summed, seen: Mapping[int, Seen], groups: Sequence[int | None]
    ) -> Metrics:
        return self.monitor(state, opened) | self.read_off(seen, groups)

    def read_off(self, seen: Mapping[int, Seen], groups: Sequence[int | None]) -> Metrics:
        """The same figures, read off the clients of a simulation that sums nothing here."""
        choices = [each.score.choice for each in seen.values() if each.score is not None]
        counts = [choices.count(pool) for pool in range(self.facts.config.pools.count)]
        return of_choices(pool_health(counts, config=self.facts.config), seen, groups)


def _fields(score: PoolScore) -> Tensor:
    if score.test_accuracy is None or not isfinite(score.test_loss):
        return torch.zeros(_FIELDS)
    loss = min(max(score.test_loss, -_LARGEST_LOSS), _LARGEST_LOSS) / _LARGEST_LOSS
    return torch.tensor([1.0, score.test_accuracy, score.test_accuracy**2, loss])


def _figures(row: Tensor) -> SummedTest:
    """What one pool's sums say: mean and standard deviation of its clients' accuracies, and their
    mean loss; None of a pool that stayed closed.
    """
    clients = round(float(row[0]))
    if clients == 0:
        return SummedTest(0, None, None, None)
    mean, square, loss = (row[1:] / clients).tolist()
    spread = sqrt(max(0.0, square - mean**2))
    return SummedTest(clients, mean, spread, loss * _LARGEST_LOSS)
