"""Pools start as models of single clients, each of the client worst served by those before it.

HypCluster's start, as in google/fedjax. Open experiments only: a sum in which each client has a
block of its own hides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secure_fl.errors import ConfigError
from secure_fl.federation.asks import ScorePools, TrainCandidate
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.steps.pools import draw_pools, get_pools, with_pools
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client

_LARGEST = 64.0
"""Losses are cut to this; a client's is a share of it in the sum."""


class Farthest(Step):
    """One round in which every client trains a candidate, then one for each further pool.

    In these, clients say how well the pools so far serve them.

    With a shared encoder, candidates are heads only: the encoder's change while training them is
    dropped.
    """

    name = "farthest"

    @property
    def rounds(self) -> int:
        return self.facts.config.pools.count

    @cached_property
    def candidate_grid(self) -> Grid:
        """A block a client, and in it the change that makes the candidate. Weight 0 from who has
        nothing to train on.
        """
        model, layout = self.factory.pool_model(0), self.factory.pool_layout
        shared = len(layout.parts(model)[0])
        wide = tuple(place - shared for place in layout.buffers(model) if place >= shared)
        clients = self.facts.clients
        return replace(self.factory.grid("cluster"), shared=0, pools=clients, wide=wide)

    @cached_property
    def loss_grid(self) -> Grid:
        """How losses become integers: one field for each client."""
        return self.factory.unit_grid(self.facts.clients)

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.candidate_grid if round_number == 0 else self.loss_grid)

    def enter(self, state: State) -> State:
        if "pools.pooled" in state.tensors:
            return state
        return with_pools(state, draw_pools(self.factory, state))

    def ask(self, state: State) -> TrainCandidate | ScorePools:
        pools = get_pools(state)
        return TrainCandidate(pools) if state.place.round == 0 else ScorePools(pools)

    def answer(self, ask: TrainCandidate | ScorePools, client: Client, position: int) -> Answer:
        if isinstance(ask, TrainCandidate):
            trained = client.protection.train_candidate(ask, position)
            weight = min(1.0, trained.weight)
            return Answer(self.candidate_grid.blocks(trained.pooled, position, weight), Seen())
        score = client.protection.choose(ask, position)
        fields = torch.zeros(self.facts.clients)
        least = min(loss if loss == loss else 0.0 for loss in score.losses)
        fields[position] = min(max(least, -_LARGEST), _LARGEST) / _LARGEST
        return Answer(self.loss_grid.blocks(fields, 0), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        pools, able = get_pools(state), state.facts.get("farthest.able", [])
        candidates = state.tensors.get("candidates")
        if state.place.round == 0:
            able, changes = self._candidates(opened)
            candidates = pools.pooled[0] + changes
        assert candidates is not None
        centre = self._centre(state, opened)
        chosen = candidates[[centre]]
        pooled = chosen if state.place.round == 0 else torch.cat([pools.pooled, chosen])
        left = {"farthest.able": [client for client in able if client != centre]}
        if state.place.round + 1 >= self.rounds:
            return state.with_values({"pools.pooled": pooled}, left, without=["candidates"])
        return state.with_values({"pools.pooled": pooled, "candidates": candidates}, left)

    def monitor(self, state: State, opened: Summed) -> Metrics:
        return Metrics(centre=self._centre(state, opened))

    def _candidates(self, opened: Summed) -> tuple[list[int], Tensor]:
        """Who has trained a candidate, and everybody's changes `[clients, P]`."""
        grid = self.candidate_grid
        _, trained = grid.heard(opened.total, opened.survivors, 1)
        _, changes = grid.means(opened.total, opened.survivors, 1)
        return [int(client) for client in trained.nonzero().flatten()], changes.float()

    def _centre(self, state: State, opened: Summed) -> int:
        """The client whose candidate is the next pool. Raises ConfigError: fewer clients than pools
        can train a candidate.
        """
        if state.place.round > 0:
            losses = self.loss_grid.sums(opened.total)
            left: list[int] = state.facts["farthest.able"]
            return max(left, key=lambda client: float(losses[client]))
        able, count = self._candidates(opened)[0], self.facts.config.pools.count
        if len(able) < count:
            problem = f"only {len(able)} clients can train a candidate"
            remedy = "lower pools.count, label more clients, or choose another pools.start"
            raise ConfigError(problem, "pools.count", count, remedy)
        return able[self.facts.seed("farthest") % len(able)]
