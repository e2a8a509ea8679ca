"""What a run will take, before it takes it: time, bytes and memory, phase by phase.

Bytes follow from what is sent: requests and replies as they are, sums from the secure sum's own
layout, with all that does not grow with the model read off one small round of the protocol. Time is
an estimate: a client's work on a few batches of noise, and a sum of a few clients, scaled. No
example of anybody's is touched.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from secure_fl.config import FederationConfig
from secure_fl.config.cohorts import group_sizes
from secure_fl.estimate.costs import Estimate, PhaseCost
from secure_fl.estimate.sample_messages import SampleMessages
from secure_fl.estimate.stop_watch import StopWatch
from secure_fl.estimate.sum_costs import sum_cost
from secure_fl.federation.messages import (
    BlockUpdate,
    GiveCentre,
    KeepEncoder,
    Kept,
    Reply,
    Request,
    payload_bytes,
)
from secure_fl.secure_sum.grid import Blocks

if TYPE_CHECKING:
    from secure_fl.run import Federation

_SETTLES = 6
"""Rounds after which k-means over sketches has usually settled."""
Asked = tuple[Request, Reply]
"""What a client is asked, and an answer of the shape that it gives."""
Work = Callable[[StopWatch], float]
"""Seconds that all clients together take to answer."""


def estimate(federation: Federation, *, timed: bool = True) -> Estimate:
    """What a run of this federation will take, without time where that is not asked for: then in
    a moment.
    """
    config, blueprint, clients = federation.config, federation.blueprint, federation.clients
    sample = SampleMessages(blueprint)
    watch = StopWatch(blueprint, clients) if timed else None
    phases = tuple(_Course(config, sample, watch, len(clients)).phases())
    sealed = 0 if config.security.protection == "plain" else 12 * sample.largest_upload
    held = 4 * sample.fields * 6 + 8 * sample.fields * 4 + sealed
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Estimate(phases, peak + held, 3 * 4 * sample.fields + 2**20)


@dataclass(frozen=True)
class _Course:
    """A run's phases, each with what it will take; without time where there is no watch."""

    config: FederationConfig
    sample: SampleMessages
    watch: StopWatch | None
    clients: int

    def phases(self) -> Iterator[PhaseCost]:
        """Every phase, in order."""
        config, sample, clients = self.config, self.sample, self.clients
        yield from self._pretraining()
        if config.evaluate.enabled and config.pretrain.mode != "none":
            yield PhaseCost("measure", 1, 0, seconds=self._timed(lambda watch: watch.measuring()))
        if sample.blueprint.needs_kept_encoder:
            kept = KeepEncoder(sample.encoder), Kept()
            yield self._asked("hand_out", 1, clients, kept, lambda _: 0.0)
        if not config.pools.enabled:
            return
        if config.pools.start == "sketch":
            yield from self._sketching()
        count, pools = config.pools.cohort_size(clients), config.pools
        train, score = sample.train_pool(), sample.score()
        yield self._asked(
            "cluster",
            pools.rounds,
            count,
            train,
            lambda watch: count * watch.client(train[0], pools),
        )
        yield self._asked(
            "evaluate", 1, clients, score, lambda watch: clients * watch.client(score[0], pools)
        )

    def _pretraining(self) -> Iterator[PhaseCost]:
        settings = self.config.pretrain
        if settings.mode not in ("federated", "centralized"):
            return
        count, train = settings.cohort_size(self.clients), self.sample.train_encoder()
        if settings.mode == "federated":
            yield self._asked(
                "pretrain",
                settings.rounds,
                count,
                train,
                lambda watch: count * watch.client(train[0], settings),
            )
        else:
            seconds = self._timed(lambda watch: watch.client(train[0], settings))
            yield PhaseCost("pretrain", settings.rounds, 0, seconds=seconds)

    def _sketching(self) -> Iterator[PhaseCost]:
        """Sketches that start the pools: a centre where one is released, then k-means."""
        clients, released = self.clients, self.sample.blueprint.sketch.released
        if self.config.noises_sketches and released is not None and released.centring:
            centre = self.sample.centre()
            yield self._asked(
                "centre", 1, clients, centre, lambda watch: clients * watch.once(GiveCentre())
            )
        vote, most = self.sample.vote(), 1 + self.config.pools.sketch_iterations
        found = self._asked(
            "sketch",
            min(most, _SETTLES),
            clients,
            vote,
            lambda watch: clients * watch.once(vote[0]),
        )
        yield replace(found, most=most)

    def _timed(self, work: Work) -> float | None:
        return None if self.watch is None else work(self.watch)

    def _asked(self, name: str, rounds: int, count: int, asked: Asked, work: Work) -> PhaseCost:
        """A phase whose rounds ask `count` clients the same."""
        (request, reply), seconds = asked, self._timed(work)
        down = count * payload_bytes(request)
        blocks = reply.blocks if isinstance(reply, BlockUpdate) else None
        if blocks is None:
            return PhaseCost(name, rounds, count, down, count * payload_bytes(reply), seconds)
        if self.config.security.protection == "plain":
            return PhaseCost(name, rounds, count, down, count * payload_bytes(blocks), seconds)
        more_down, up, more = self._summed(name, count, blocks)
        spent = None if seconds is None else seconds + more
        return PhaseCost(name, rounds, count, down + more_down, up, spent)

    def _summed(self, name: str, count: int, blocks: Blocks) -> tuple[int, int, float]:
        """Bytes down and up, and seconds, of a round's protected sums, one for each group."""
        grouped = self.config.security.robust != "none" and name in ("pretrain", "cluster")
        size = max(group_sizes(count, self.config.security.group_size)) if grouped else count
        groups = max(1, round(count / size))
        down, up = sum_cost(self.config, blocks, size)
        seconds = self._timed(lambda watch: watch.of_sum(self.config, blocks, size)) or 0.0
        return groups * down, groups * up, groups * seconds
