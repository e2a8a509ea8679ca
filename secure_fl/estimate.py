"""What a run will take, before it takes it: time, bytes and memory, phase by phase.

Bytes follow from what is sent: requests and replies as they are, sums from the secure sum's own
layout, with all that does not grow with the model read off one small round of the protocol. Time is
an estimate: a client's work on a few batches of noise, and a sum of a few clients, scaled. No
example of anybody's is touched.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from secure_fl.config import FederationConfig, OptimiserConfig
from secure_fl.config.cohorts import group_sizes
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.federation.block_replies import in_blocks
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import (
    BlockUpdate,
    CentreShare,
    CentreVote,
    EncoderUpdate,
    GiveCentre,
    GiveSketch,
    Guide,
    KeepEncoder,
    Kept,
    PoolScore,
    PoolUpdate,
    Reply,
    Request,
    ScorePools,
    TrainEncoder,
    TrainPool,
    VoteCentre,
    payload_bytes,
)
from secure_fl.federation.phase import Call
from secure_fl.models.state import to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.round_layers import body_bytes
from secure_fl.secure_sum.round_plan import BlockShape, BlockVector, RoundPlan
from secure_fl.secure_sum.round_sizes import sum_bytes
from secure_fl.secure_sum.secure_sum import EmbeddedFederation
from secure_fl.training.representation import measure_representation

if TYPE_CHECKING:
    from secure_fl.run import Federation

_SMALL_COHORT, _SMALL_WIDTH = 16, 64
_MOST_FIELDS = 150_000
"""Fields of a pool that a sum is timed with; wider ones are scaled."""
_SLOW = 2.0
"""Seconds after which one batch is enough to scale from."""
_MEASURED = 256
_SETTLES = 6
"""Rounds after which k-means over sketches has usually settled."""


@dataclass(frozen=True)
class PhaseCost:
    """What one phase will take.

    Attributes:
        rounds: that there will be; of `sketch`, which ends when it has settled, as many as it
            usually takes.
        most: rounds that there may be.
        clients: called in a round.
        down, up: bytes of one round, over all clients; of `sketch` of a round of k-means.
        seconds: of one round, all parties in this process; None where time was not estimated.
    """

    name: str
    rounds: int
    clients: int
    down: int = 0
    up: int = 0
    seconds: float | None = None
    most: int | None = None

    @property
    def bytes(self) -> int:
        """Of all rounds, both ways."""
        return self.rounds * (self.down + self.up)


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        memory: bytes that the process will hold at its peak, about.
        disk: bytes that the run folder will hold, about.
    """

    phases: tuple[PhaseCost, ...]
    memory: int
    disk: int

    @property
    def bytes(self) -> int:
        """Both ways, over all phases."""
        return sum(phase.bytes for phase in self.phases)

    @property
    def seconds(self) -> float | None:
        """All phases; None where time was not estimated."""
        if any(phase.seconds is None for phase in self.phases):
            return None
        return sum(phase.rounds * (phase.seconds or 0.0) for phase in self.phases)


def estimate(federation: Federation, *, timed: bool = True) -> Estimate:
    """What a run of this federation will take, without time where that is not asked for: then in
    a moment.
    """
    config, blueprint, clients = federation.config, federation.blueprint, federation.clients
    sample, clock = _Messages(blueprint), _Clock(blueprint, clients) if timed else None
    phases = tuple(_phases(config, sample, clock, len(clients)))
    fields = sample.fields
    held = (
        4 * fields * 6
        + 8 * fields * 4
        + (0 if config.security.protection == "plain" else 12 * sample.largest_upload)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return Estimate(phases, peak + held, 3 * 4 * fields + 2**20)


def _phases(
    config: FederationConfig, sample: _Messages, clock: _Clock | None, clients: int
) -> Iterator[PhaseCost]:
    """Every phase, in order."""

    def asked(
        name: str,
        rounds: int,
        count: int,
        request: Request,
        reply: Reply,
        work: Callable[[], float],
    ) -> PhaseCost:
        down, up, blocks = (
            count * payload_bytes(request),
            0,
            reply.blocks if isinstance(reply, BlockUpdate) else None,
        )
        seconds = None if clock is None else work()
        if blocks is None:
            return PhaseCost(name, rounds, count, down, count * payload_bytes(reply), seconds)
        if config.security.protection == "plain":
            return PhaseCost(name, rounds, count, down, count * payload_bytes(blocks), seconds)
        grouped = config.security.robust != "none" and name in ("pretrain", "cluster")
        size = max(group_sizes(count, config.security.group_size)) if grouped else count
        groups = max(1, round(count / size))
        more_down, more_up = sum_cost(config, blocks, size)
        spent = (
            None
            if clock is None or seconds is None
            else seconds + groups * clock.of_sum(config, blocks, size)
        )
        return PhaseCost(
            name, rounds, count, down + groups * more_down, up + groups * more_up, spent
        )

    pretrain, pools = config.pretrain, config.pools
    if pretrain.mode == "federated":
        count = pretrain.cohort_size(clients)
        request, reply = sample.train_encoder()
        yield asked(
            "pretrain",
            pretrain.rounds,
            count,
            request,
            reply,
            lambda: count * _of(clock).client(request, pretrain),
        )
    elif pretrain.mode == "centralized":
        yield PhaseCost(
            "pretrain",
            pretrain.rounds,
            0,
            seconds=None if clock is None else clock.client(sample.train_encoder()[0], pretrain),
        )
    if config.evaluate.enabled and pretrain.mode != "none":
        yield PhaseCost("measure", 1, 0, seconds=None if clock is None else clock.measuring())
    if sample.blueprint.needs_kept_encoder:
        yield asked("hand_out", 1, clients, KeepEncoder(sample.encoder), Kept(), lambda: 0.0)
    if not pools.enabled:
        return
    if pools.start == "sketch":
        if (
            config.noises_sketches
            and sample.blueprint.sketch.released is not None
            and sample.blueprint.sketch.released.centring
        ):
            yield asked(
                "centre",
                1,
                clients,
                *sample.centre(),
                lambda: clients * _of(clock).once(GiveCentre()),
            )
        vote, voted = sample.vote()
        most = 1 + pools.sketch_iterations
        found = asked(
            "sketch",
            min(most, _SETTLES),
            clients,
            vote,
            voted,
            lambda: clients * _of(clock).once(vote),
        )
        yield replace(found, most=most)
    count = pools.cohort_size(clients)
    train, update = sample.train_pool()
    yield asked(
        "cluster",
        pools.rounds,
        count,
        train,
        update,
        lambda: count * _of(clock).client(train, pools),
    )
    score, told = sample.score()
    yield asked(
        "evaluate", 1, clients, score, told, lambda: clients * _of(clock).client(score, pools)
    )


def _of(clock: _Clock | None) -> _Clock:
    assert clock is not None
    return clock


def sum_cost(config: FederationConfig, blocks: Blocks, clients: int) -> tuple[int, int]:
    """Bytes down and up of one protected sum over so many clients, every pool opened.

    A round of the protocol with narrow pools, and as many clients up to sixteen, shows what the
    rest costs. That grows with clients times those they share masks with; bodies and sums are the
    layout's own.
    """
    few, real = min(clients, _SMALL_COHORT), _shape(blocks)
    small = replace(real, width=_SMALL_WIDTH, shared=min(real.shared, _SMALL_WIDTH))
    plan, down, up = _round(config, small, few)
    grown = replace(plan, shape=real)
    bodies = sum(body_bytes(grown, block) - body_bytes(plan, block) for block in range(real.blocks))
    degree = (
        config.security.sums(clients, config.privacy.colluders).degree if clients > few else None
    )
    more = clients / few * ((clients if degree is None else degree + 1) / few)
    fixed = sum(body_bytes(plan, block) for block in range(real.blocks))
    return round((down - _sums(plan)) * more) + _sums(grown), round(
        (up - few * fixed) * more
    ) + clients * (fixed + bodies)


def _sums(plan: RoundPlan) -> int:
    """Bytes of all sums that are sent to whoever decrypts, beside the counts'; none where there is
    nothing to decrypt.
    """
    return (
        sum(sum_bytes(plan, block) for block in range(1, plan.shape.blocks))
        if plan.encrypted
        else 0
    )


def _shape(blocks: Blocks) -> BlockShape:
    pools, width = blocks.pools.shape
    return BlockShape(pools, width, len(blocks.shared), len(blocks.head), counted=pools > 1)


def _round(
    config: FederationConfig,
    shape: BlockShape,
    clients: int,
    parties: EmbeddedFederation | None = None,
    number: int = 0,
) -> _Round:
    """A whole round of the protocol over made-up vectors."""
    running = (parties or _parties(config, clients)).begin(
        number, shape, cohort=[], bound=1, minimum=1
    )
    for place, name in enumerate(running.plan.cohort):
        ones = np.ones(shape.width, dtype=np.int64)
        shared = np.ones(shape.shared, dtype=np.int64) if shape.shared else None
        running.add(
            running.protect(
                name, BlockVector.one_hot(shape, place % shape.pools, ones, shared=shared)
            )
        )
    running.open()
    return _Round(running.plan, sum(running.down.values()), sum(running.up.values()))


def _parties(config: FederationConfig, clients: int) -> EmbeddedFederation:
    security = config.security
    return EmbeddedFederation(
        clients,
        protection=security.protection,
        key_holder=security.key_holder,
        rotation_rounds=security.rotation_rounds,
    )


class _Round(NamedTuple):
    """A round's plan, and its bytes from the server and to it."""

    plan: RoundPlan
    down: int
    up: int


class _Messages:
    """Requests and replies of the shapes that a run sends, holding zeros."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, config = blueprint, blueprint.config
        self.encoder = to_vector(blueprint.encoder())
        self.vector = (
            to_vector(blueprint.encoder_projector())
            if config.pretrain.mode in ("federated", "centralized")
            else torch.empty(0)
        )
        shared, pooled = (
            blueprint.layout.parts(blueprint.pool_model(0))
            if config.pools.enabled
            else (torch.empty(0), torch.empty(0))
        )
        self.pools = PoolSet(shared, pooled.repeat(max(1, config.pools.count), 1))
        self.largest_upload = 0
        self.fields = len(self.vector) + len(self.encoder) + self.pools.pooled.numel() + len(shared)
        width = (
            blueprint.sketch_width if config.pools.enabled and config.pools.start == "sketch" else 0
        )
        self._guide = (
            Guide(torch.zeros(width), torch.zeros(config.pools.count, width)) if width else None
        )
        losses = tuple(0.0 for _ in range(config.pools.count))
        self._score = PoolScore(0, () if config.privacy.unit != "none" else losses, 0.0, 0.0, 0.0)

    def train_encoder(self) -> tuple[TrainEncoder, Reply]:
        terms = (
            dict.fromkeys(self.blueprint.objective(0).weights, 0.0)
            if self.blueprint.config.privacy.unit == "none"
            else {}
        )
        return TrainEncoder(0, self.vector), self._answer(
            EncoderUpdate(torch.zeros(len(self.vector)), 1.0, terms), "pretrain"
        )

    def train_pool(self) -> tuple[TrainPool, Reply]:
        terms = (
            dict.fromkeys(self.blueprint.pool_weights, 0.0)
            if self.blueprint.config.privacy.unit == "none"
            else {}
        )
        shared, pooled = (
            torch.zeros(len(self.pools.shared)),
            torch.zeros(self.pools.pooled.shape[1]),
        )
        reply = PoolUpdate(self._score, shared, pooled, 1.0, terms)
        return TrainPool(0, self.pools, self._guide), self._answer(reply, "cluster")

    def score(self) -> tuple[ScorePools, Reply]:
        return ScorePools(self.pools, self._guide), self._score

    def vote(self) -> tuple[VoteCentre, Reply]:
        config, width = self.blueprint.config.pools, self.blueprint.sketch_width
        centres = torch.zeros(config.sketch_starts, config.count, width)
        return VoteCentre(torch.zeros(width), centres), self._answer(
            CentreVote(torch.zeros(*centres.shape[:2], width + 2)), "votes"
        )

    def centre(self) -> tuple[GiveCentre, Reply]:
        return GiveCentre(), self._answer(
            CentreShare(torch.zeros(self.blueprint.sketch.inputs)), "centre"
        )

    def _answer(self, reply: Reply, phase: str) -> Reply:
        plan = (
            self.blueprint.client_plan if self.blueprint.config.privacy.unit == "client" else None
        )
        if plan is not None and phase in plan.by_phase():
            level = plan.of(phase)
            inside = None if level.bit_noise is None else False
            reply = BlockUpdate(
                level.blocks(
                    torch.zeros(level.shared + level.pooled, dtype=torch.int64), 0, inside=inside
                )
            )
        made = in_blocks(reply, self.blueprint)
        if isinstance(made, BlockUpdate) and made.blocks is not None:
            self.largest_upload = max(self.largest_upload, payload_bytes(made.blocks))
        return made


class _Clock:
    """Times a client of noise, and sums of a few clients."""

    def __init__(self, blueprint: Blueprint, clients: list[ClientData]) -> None:
        self._clients, self._blueprint = clients, blueprint
        privacy = blueprint.config.privacy
        trial = blueprint.config.model_copy(
            update={"privacy": privacy.model_copy(update={"noise": privacy.noise or 1.0})}
        )
        self._trial = replace(blueprint, config=trial)

    def client(self, request: Request, settings: OptimiserConfig) -> float:
        """Seconds that a client takes to answer, the mean over the clients: linear in
        its examples.
        """
        batch = settings.batch_size
        sizes = [ceil(len(client.train) / batch) for client in self._clients]
        batches = sum(sizes) / len(sizes)
        largest = max(len(client.train) for client in self._clients)
        if largest <= 2 * batch:
            examples = round(
                sum(len(client.train) for client in self._clients) / len(self._clients)
            )
            self._answered(request, max(2, examples))
            return self._answered(request, max(2, examples))
        if (
            self._answered(request, batch) > _SLOW
            or (first := self._answered(request, batch)) > _SLOW
        ):
            return batches * self._answered(request, batch)
        more = min(3, max(2, round(batches)))
        each = max(0.0, (self._answered(request, more * batch) - first) / (more - 1))
        return max(first, first + (batches - 1) * each)

    def once(self, request: Request) -> float:
        """Seconds for an answer that takes the same whatever a client holds."""
        self._answered(request, 8)
        return self._answered(request, 8)

    def measuring(self) -> float:
        """Seconds for the metrics of the representation, before and after pre-training."""
        blueprint, config = self._blueprint, self._blueprint.config.evaluate
        train, test = (
            sum(len(getattr(client, name)) for client in self._clients)
            for name in ("train", "test")
        )

        def took(most: int) -> tuple[float, int]:
            few = [max(4, min(most, count)) for count in (train, test)]
            bank, judged = (self._noise(count) for count in few)
            begun = time.perf_counter()
            measure_representation(
                blueprint.encoder(),
                bank,
                judged,
                config,
                augment=blueprint.augment,
                compute=blueprint.compute,
                seed=0,
            )
            return time.perf_counter() - begun, sum(few)

        took(8)  # what is imported and compiled at the first call
        (least, few), (more, many) = took(8), took(_MEASURED)
        return 2 * (least + max(0.0, more - least) / max(1, many - few) * (train + test - few))

    def of_sum(self, config: FederationConfig, blocks: Blocks, clients: int) -> float:
        """Seconds of one protected sum, all parties: what a client adds, by the fields, and the
        rest of the protocol.
        """
        real, few = _shape(blocks), min(clients, 4)
        width = min(real.width, max(_SMALL_WIDTH, _MOST_FIELDS // real.pools))
        small = replace(real, width=_SMALL_WIDTH, shared=min(real.shared, _SMALL_WIDTH))
        wide = replace(real, width=width, shared=min(real.shared, _MOST_FIELDS))
        if few < 3:
            return 0.0
        rest = self._sum(config, small, many := min(clients, _SMALL_COHORT)) * (clients / many) ** 2
        fields = (real.width * real.pools + real.shared) / (wide.width * wide.pools + wide.shared)
        each = max(0.0, self._sum(config, wide, few) - self._sum(config, small, few)) / few
        return rest + each * fields * clients

    def _sum(self, config: FederationConfig, shape: BlockShape, clients: int) -> float:
        """Seconds of a round under keys that are there already."""
        parties = _parties(config, clients)
        _round(
            config,
            replace(shape, width=_SMALL_WIDTH, shared=min(shape.shared, _SMALL_WIDTH)),
            clients,
            parties,
        )
        begun = time.perf_counter()
        _round(config, shape, clients, parties, 1)
        return time.perf_counter() - begun

    def _answered(self, request: Request, examples: int) -> float:
        train = self._noise(examples)
        tested = round(sum(len(client.test) for client in self._clients) / len(self._clients))
        data = ClientData(0, train, train, self._noise(max(1, tested)), None, "noise")
        engine = EmbeddedEngine([data], self._trial)
        if self._trial.needs_kept_encoder:
            for _ in engine.ask(Call((0,), KeepEncoder(to_vector(self._trial.encoder())))):
                pass
        if isinstance(request, VoteCentre):
            released = self._trial.private_sketch
            centre = (
                torch.zeros(self._trial.sketch.inputs)
                if released is not None and released.centring
                else None
            )
            for _ in engine.ask(Call((0,), GiveSketch(centre))):
                pass
        if isinstance(request, TrainPool | ScorePools):
            request = replace(request, guide=None)
        begun = time.perf_counter()
        for _ in engine.ask(Call((0,), request)):
            pass
        return time.perf_counter() - begun

    def _noise(self, count: int) -> Dataset:
        """Examples of nobody's, with every class among the labels."""
        classes = max(1, self._blueprint.classes)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, *self._blueprint.shape, generator=generator)
        labels = torch.arange(count) % classes if self._blueprint.classes else None
        return Dataset.from_arrays(
            x, labels, classes=classes if self._blueprint.classes else None, name="noise"
        )
