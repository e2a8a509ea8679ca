"""Clients choose among K pools and train the one they choose; each pool averages its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from secure_fl.config import PoolsConfig
from secure_fl.federation.asks import TrainPool
from secure_fl.federation.observe import Seen, of_choices, of_steps, of_training
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.steps.pools import draw_pools, get_guide, get_pools, with_pools
from secure_fl.federation.steps.step import Answer, UpdateStep
from secure_fl.federation.summing import Summed
from secure_fl.pools.monitor import PoolHealth, pool_health
from secure_fl.pools.pool_set import PoolSet

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


class Cluster(UpdateStep):
    """Rounds of choosing, training and per-pool averaging (CP-CFL; IFCA's second option).

    Pools nobody chose stay.

    A round's accuracy is measured when clients choose, before they train: it is that of the pools
    as the round found them.

    **What differences of its sums show.** Choices stand still, and every pool's count is opened,
    below the minimum too: where one client is missing from a round, or comes back, and the others
    keep their pools, the count that changed is that client's choice; with `participation` below 1
    every choice follows from a few rounds, and the run says so. Only noise on the counts hides it,
    which client-level privacy adds. That a client has nothing to train on (weight 0) shows in the
    same way. Updates, the shared encoder's too, are new every round; weights and running statistics
    are as in pre-training, and a frozen encoder is not sent at all.
    """

    name = "cluster"

    @property
    def settings(self) -> PoolsConfig:
        return self.facts.config.pools

    @property
    def minimum(self) -> int:
        return self.facts.config.security.min_pool_clients

    def enter(self, state: State) -> State:
        if "pools.pooled" in state.tensors:
            return state
        return with_pools(state, draw_pools(self.factory, state))

    def ask(self, state: State) -> TrainPool:
        guide, number = get_guide(state), state.place.round
        forced = guide is not None and number < self.facts.config.pools.warmup_rounds
        return TrainPool(number, get_pools(state), guide, forced, self.bound(state))

    def answer(self, ask: TrainPool, client: Client, position: int) -> Answer:
        score = client.protection.choose(ask, position)
        trained = client.protection.train_pool(ask, score.choice, position)
        return client.protection.sent(ask, self.updates, trained, score)

    def apply(self, state: State, opened: Summed) -> State:
        pools, moved = get_pools(state), self.updates.moved(opened, self.bound(state))
        shared = (pools.shared.double() + moved.shared).float()
        pooled = (pools.pooled.double() + moved.pooled).float()
        state = state.with_values(facts=self.next_bound(moved))
        return with_pools(state, PoolSet(shared, pooled))

    def monitor(self, state: State, opened: Summed) -> Metrics:
        told = self.updates.group_metrics(opened) | self.updates.differences(opened)
        return Metrics(pools=self._health(opened)) | told

    def observe(
        self, state: State, opened: Summed, seen: Mapping[int, Seen], groups: Sequence[int | None]
    ) -> Metrics:
        loss = Metrics(loss=of_training(seen, self.factory.pool_weights).loss)
        chosen = of_choices(self._health(opened), seen, groups)
        return loss | self.monitor(state, opened) | chosen | of_steps(seen)

    def _health(self, opened: Summed) -> PoolHealth:
        return pool_health(self.updates.counts(opened), config=self.facts.config)
