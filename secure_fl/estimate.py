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
from secure_fl.federation.asks import payload_bytes
from secure_fl.federation.factory import Blueprint
from secure_fl.federation.state import Place, State
from secure_fl.federation.step_program import StepProgram
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.step import Step
from secure_fl.models.state import to_vector
from secure_fl.secure_sum.block_codec import body_bytes
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import sum_bytes
from secure_fl.training.fit import LocalSpec
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
    sample, clock = _Sample(blueprint), _Clock(blueprint, clients) if timed else None
    phases = tuple(_phases(sample, clock))
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


def _phases(sample: _Sample, clock: _Clock | None) -> Iterator[PhaseCost]:
    """Every phase, in order."""
    blueprint, config = sample.blueprint, sample.blueprint.config
    steps = steps_of(blueprint)
    names = [step.name for step in steps]
    if config.pretrain.mode == "centralized":
        seconds = None if clock is None else clock.at_a_server()
        yield PhaseCost("pretrain", config.pretrain.rounds, 0, seconds=seconds)
    measures = config.evaluate.enabled and config.pretrain.mode != "none"
    if measures and "pretrain" not in names:
        yield _measuring(clock)
    for place, step in enumerate(steps):
        yield _cost(sample, clock, step, place)
        if measures and step.name == "pretrain":
            yield _measuring(clock)
    if config.pools.enabled and "evaluate" not in names:
        seconds = None if clock is None else blueprint.clients * clock.scored()
        yield PhaseCost("evaluate", 1, blueprint.clients, seconds=seconds)


def _measuring(clock: _Clock | None) -> PhaseCost:
    return PhaseCost("measure", 1, 0, seconds=None if clock is None else clock.measuring())


def _cost(sample: _Sample, clock: _Clock | None, step: Step, place: int) -> PhaseCost:
    """What a step of the program will take."""
    config = sample.blueprint.config
    number = 1 if step.name == "sketch" else 0
    form, state = step.form(number), sample.state.at(Place(place, number))
    count, shape = len(form.cohort), form.shape
    rounds, most = step.rounds, None
    if step.name == "sketch":
        rounds, most = min(rounds, _SETTLES), rounds
    down, up = count * payload_bytes(step.ask(state)), count * 8 * _fields(shape)
    seconds = None if clock is None else count * clock.answer(step, place, number)
    if config.security.protection != "plain":
        grouped = form.opening.group_size is not None
        size = max(group_sizes(count, config.security.group_size)) if grouped else count
        groups = max(1, round(count / size))
        more_down, more_up = sum_cost(config, shape, size)
        down, up = down + groups * more_down, groups * more_up
        if clock is not None and seconds is not None:
            seconds += groups * clock.of_sum(config, shape, size)
    sample.largest_upload = max(sample.largest_upload, 8 * _fields(shape))
    return PhaseCost(step.name, rounds, count, down, up, seconds, most)


def _fields(shape: BlockShape) -> int:
    """Of one client's integers."""
    return sum(shape.fields(block) for block in range(shape.blocks))


def sum_cost(config: FederationConfig, real: BlockShape, clients: int) -> tuple[int, int]:
    """Bytes down and up of one protected sum over so many clients, every pool opened.

    A round of the protocol with narrow pools, and as many clients up to sixteen, shows what the
    rest costs. That grows with clients times those they share masks with; bodies and sums are the
    layout's own.
    """
    few = min(clients, _SMALL_COHORT)
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


class _Sample:
    """A state of the shapes that a run has, holding zeros."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, config = blueprint, blueprint.config
        self.largest_upload = 0
        self.state = sample_state(blueprint)
        held = ("model", "encoder", "pools.shared", "pools.pooled")
        trained = config.pretrain.mode in ("federated", "centralized")
        lengths = {
            name: tensor.numel() for name, tensor in self.state.tensors.items() if name in held
        }
        self.fields = sum(lengths.values()) - (0 if trained else lengths["model"])


def sample_state(blueprint: Blueprint) -> State:
    """A state with all that any step of a run asks by, holding zeros."""
    pools, tensors = blueprint.config.pools, {"model": to_vector(blueprint.encoder_projector())}
    tensors["encoder"] = to_vector(blueprint.encoder())
    if pools.enabled:
        shared, pooled = blueprint.layout.parts(blueprint.pool_model(0))
        tensors |= {"pools.shared": shared, "pools.pooled": pooled.repeat(pools.count, 1)}
    if pools.enabled and pools.start == "sketch":
        width, released = blueprint.sketch_width, blueprint.private_sketch
        if released is not None and released.centring:
            tensors["sketch.public_centre"] = torch.zeros(blueprint.sketch.inputs)
        tensors |= {
            "guide.mean": torch.zeros(width),
            "guide.centres": torch.zeros(pools.count, width),
        }
        tensors["sketch.mean"] = torch.zeros(width)
        tensors["sketch.centres"] = torch.zeros(pools.sketch_starts, pools.count, width)
    return State(Place(0, 0), tensors)


class _Clock:
    """Times a client of noise, and sums of a few clients."""

    def __init__(self, blueprint: Blueprint, clients: list[ClientData]) -> None:
        self._clients, self._blueprint = clients, blueprint
        privacy = blueprint.config.privacy
        trial = blueprint.config.model_copy(
            update={"privacy": privacy.model_copy(update={"noise": privacy.noise or 1.0})}
        )
        self._trial = replace(blueprint, config=trial)

    def answer(self, step: Step, place: int, number: int) -> float:
        """Seconds that a client takes to answer in a round of a step, the mean over the clients."""
        config, at = self._blueprint.config, Place(place, number)
        if step.name in ("centre", "sketch"):  # what a client holds makes little difference
            self._answered(at, 8)
            return self._answered(at, 8)
        settings = config.pretrain if step.name == "pretrain" else config.pools
        return self._scaled(settings, lambda examples: self._answered(at, examples))

    def scored(self) -> float:
        """Seconds that a client takes to choose and test a pool."""
        settings = self._blueprint.config.pools
        return self._scaled(settings, lambda examples: self._answered(None, examples))

    def at_a_server(self) -> float:
        """Seconds of a round of pre-training at a server, as a client of mean size would take."""
        pretrain = self._blueprint.config.pretrain
        task = self._blueprint.pretrain_task(None)
        spec = LocalSpec.at_round(pretrain, 0, pretrain.rounds)

        def trained(examples: int) -> float:
            model, data, begun = (
                self._blueprint.encoder_projector(),
                self._noise(examples),
                time.perf_counter(),
            )
            task.fit(model, data, spec, 0)
            return time.perf_counter() - begun

        return self._scaled(pretrain, trained)

    def _scaled(self, settings: OptimiserConfig, took: Callable[[int], float]) -> float:
        """Seconds of something that is linear in a client's examples."""
        batch = settings.batch_size
        sizes = [ceil(len(client.train) / batch) for client in self._clients]
        batches = sum(sizes) / len(sizes)
        largest = max(len(client.train) for client in self._clients)
        if largest <= 2 * batch:
            examples = max(
                2, round(sum(len(client.train) for client in self._clients) / len(self._clients))
            )
            took(examples)
            return took(examples)
        if took(batch) > _SLOW or (first := took(batch)) > _SLOW:
            return batches * took(batch)
        more = min(3, max(2, round(batches)))
        each = max(0.0, (took(more * batch) - first) / (more - 1))
        return max(first, first + (batches - 1) * each)

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

    def of_sum(self, config: FederationConfig, real: BlockShape, clients: int) -> float:
        """Seconds of one protected sum, all parties: what a client adds, by the fields, and the
        rest of the protocol.
        """
        few = min(clients, 4)
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

    def _answered(self, place: Place | None, examples: int) -> float:
        """Seconds of one client's answer at a place; without one, of its choice of a pool."""
        train = self._noise(examples)
        tested = round(sum(len(client.test) for client in self._clients) / len(self._clients))
        data = ClientData(0, train, train, self._noise(max(1, tested)), None, "noise")
        program = StepProgram(self._trial, steps_of(self._trial))
        engine, whole = EmbeddedEngine([data], program), sample_state(self._trial)
        state = whole.with_values(without=["guide.mean", "guide.centres"]).at(place or whole.place)
        if place is not None and program.step(place).name == "sketch":
            engine.recall(state)
        begun = time.perf_counter()
        if place is None:
            list(engine.scored(Evaluate(self._trial), state))
        else:
            engine.clients[0].answer(state, 0)
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
