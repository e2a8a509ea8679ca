"""Phase two: clients choose among K pools and train the one they choose; each pool averages its own."""

from __future__ import annotations

from math import isfinite
from statistics import fmean, pstdev

from secure_fl.federation.messages import BlockUpdate, PoolScore, PoolUpdate, Reply, ScorePools, TrainPool
from secure_fl.federation.phase import Call, Metrics, Phase, mean_terms
from secure_fl.federation.starts import draw_pools, get_guide, get_pools, set_pools
from secure_fl.federation.summing import Summed
from secure_fl.federation.sums import BlockSum
from secure_fl.pools.monitor import pool_health
from secure_fl.pools.pool_set import PoolSet


class Cluster(Phase):
    """Rounds of choosing, training and per-pool averaging (CP-CFL; IFCA's second option). Pools nobody chose stay.

    A round's accuracy is measured when clients choose, before they train: it is that of the pools as the round found them.

    **What differences of its sums show.** Choices stand still, and every pool's count is opened, below the minimum too: where one client is
    missing from a round, or comes back, and the others keep their pools, the count that changed is that client's choice; with
    `participation` below 1 every choice follows from a few rounds, and the run says so. Only noise on the counts hides it, which client-level
    privacy adds. That a client has nothing to train on (weight 0) shows in the same way. Updates, the shared encoder's too, are new
    every round; weights and running statistics are as in pre-training, and a frozen encoder is not sent at all.
    """

    name = "cluster"

    @property
    def rounds(self) -> int:
        return self.blueprint.config.pools.rounds

    def open(self) -> Call:
        if "pools.pooled" not in self.state.tensors:
            set_pools(self.state, draw_pools(self.blueprint, self.state))
        pools, config = get_pools(self.state), self.blueprint.config.pools
        self._pooled = BlockSum(len(pools), pools.pooled.shape[1])
        self._shared = BlockSum(1, len(pools.shared))
        self._summed: Summed | None = None
        self._scores: dict[int, PoolScore] = {}
        self._watch()
        guide = get_guide(self.state)
        forced = guide is not None and self.state.round < config.warmup_rounds
        return Call(self.sampled(config), TrainPool(self.state.round, pools, guide, forced, self.bound))

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, BlockUpdate | PoolUpdate)
        self._observe(client, reply)
        if isinstance(reply, BlockUpdate):
            assert reply.observed is not None
            self._scores[client] = reply.observed
            return
        self._pooled.add(reply.score.choice, reply.pooled, reply.weight)
        self._shared.add(0, reply.shared, reply.weight)
        self._scores[client] = reply.score

    def take(self, summed: Summed) -> None:
        self._summed = summed

    def close(self) -> Metrics:
        pools = get_pools(self.state)
        if self._summed is not None:
            shared, pooled = self.means(self._summed)
            moved = PoolSet((pools.shared.double() + shared).float(), (pools.pooled.double() + pooled).float())
        else:
            moved = PoolSet(self._shared.moved(pools.shared[None])[0], self._pooled.moved(pools.pooled))
        set_pools(self.state, moved)
        terms, scores = mean_terms(self._terms), self._scores
        loss = sum(self.blueprint.pool_weights[name] * value for name, value in terms.items()) if terms else None
        return {"loss": loss, **_occupancy(self, scores, len(pools)), **self.watched_metrics}


class Evaluate(Phase):
    """Every client chooses among the final pools and tests its choice, for the experimenter: a deployment asks nobody."""

    name = "evaluate"

    @property
    def rounds(self) -> int:
        return 1

    def open(self) -> Call:
        self._scores: dict[int, PoolScore] = {}
        return Call(self.everyone, ScorePools(get_pools(self.state), get_guide(self.state)))

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, PoolScore)
        self._scores[client] = reply

    def close(self) -> Metrics:
        return _occupancy(self, self._scores, len(get_pools(self.state)))


def _occupancy(phase: Phase, scores: dict[int, PoolScore], pools: int) -> Metrics:
    """Who chose what, how well it serves them, and whether the pools have collapsed: all of it read off the clients by the experimenter."""
    choices = [score.choice for score in scores.values()]
    counts = [choices.count(k) for k in range(pools)]
    accuracies = [score.test_accuracy for score in scores.values() if score.test_accuracy is not None]
    balanced = [score.test_balanced for score in scores.values() if score.test_balanced is not None]
    losses = [score.test_loss for score in scores.values() if isfinite(score.test_loss)]
    health = pool_health(counts, choices, [phase.groups[client] for client in scores], phase.blueprint.config)
    return {
        "accuracy": fmean(accuracies) if accuracies else None,
        "accuracy_std": pstdev(accuracies) if accuracies else None,
        "accuracy_min": min(accuracies, default=None),
        "balanced_accuracy": fmean(balanced) if balanced else None,
        "test_loss": fmean(losses) if losses else None,
        "pools": health.as_dict(),
        "choices": {str(client): score.choice for client, score in scores.items()},
        "accuracies": {str(client): score.test_accuracy for client, score in scores.items()},
    }
