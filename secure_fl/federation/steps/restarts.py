"""Draw pools anew until each attracts its share of clients, as IFCA does (arXiv 2006.04088)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from secure_fl.federation.asks import ScorePools
from secure_fl.federation.factory.updates import counts_on
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.steps.pools import draw_pools, with_pools
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


class Restarts(Step):
    """A sum of one-hot choices for each draw; the run goes on with the best of them. Choices among
    models that are drawn anew each time: every sum shows how many chose what.
    """

    name = "restarts"

    @property
    def rounds(self) -> int:
        return self.facts.config.pools.restart_attempts

    def ended(self, state: State) -> bool:
        return bool(state.facts.get("restarts.done"))

    @cached_property
    def grid(self) -> Grid:
        """A count a pool, and one coordinate that stays zero."""
        return self.factory.unit_grid(1, self.facts.config.pools.count)

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.grid)

    def ask(self, state: State) -> ScorePools:
        return ScorePools(draw_pools(self.factory, state, state.place.round))

    def answer(self, ask: ScorePools, client: Client, position: int) -> Answer:
        score = client.protection.choose(ask, position)
        return Answer(self.grid.blocks(torch.zeros(1), score.choice), Seen(score=score))

    def apply(self, state: State, opened: Summed) -> State:
        counts, attempt = counts_on(self.grid, opened), state.place.round
        facts: dict[str, object] = {"restarts.done": self._accepted(counts)}
        if min(counts) > state.facts.get("restarts.fewest", -1):
            facts["restarts.fewest"] = min(counts)
            state = with_pools(state, draw_pools(self.factory, state, attempt))
        return state.with_values(facts=facts)

    def monitor(self, state: State, opened: Summed) -> Metrics:
        counts = counts_on(self.grid, opened)
        return Metrics(counts=tuple(counts), accepted=self._accepted(counts))

    def _accepted(self, counts: list[int]) -> bool:
        return min(counts) >= self.facts.config.pools.restart_share * sum(counts)
