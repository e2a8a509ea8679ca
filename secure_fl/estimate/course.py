"""What a run will take, before it takes it: time, bytes and memory, phase by phase.

Bytes follow from what is sent: requests and replies as they are, sums from the secure sum's own
layout, with all that does not grow with the model read off one small round of the protocol. Time is
an estimate: a client's work on a few batches of noise, and a sum of a few clients, scaled. No
example of anybody's is touched.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from secure_fl.config.cohorts import group_sizes
from secure_fl.estimate.costs import Estimate, PhaseCost
from secure_fl.estimate.stop_watch import StopWatch
from secure_fl.estimate.sum_costs import sum_cost
from secure_fl.estimate.zero_state import sample_state
from secure_fl.federation.asks import payload_bytes
from secure_fl.federation.factory import Blueprint
from secure_fl.federation.state import Place
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.step import Step
from secure_fl.secure_sum.blocks import BlockShape

if TYPE_CHECKING:
    from secure_fl.run import Federation

_SETTLES = 6
"""Rounds after which k-means over sketches has usually settled."""


def estimate(federation: Federation, *, timed: bool = True) -> Estimate:
    """What a run of this federation will take, without time where that is not asked for: then in
    a moment.
    """
    config, blueprint, clients = federation.config, federation.blueprint, federation.clients
    shapes, watch = _Shapes(blueprint), StopWatch(blueprint, clients) if timed else None
    phases = tuple(_phases(shapes, watch))
    sealed = 0 if config.security.protection == "plain" else 12 * shapes.largest_upload
    held = 4 * shapes.fields * 6 + 8 * shapes.fields * 4 + sealed
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Estimate(phases, peak + held, 3 * 4 * shapes.fields + 2**20)


def _phases(shapes: _Shapes, watch: StopWatch | None) -> Iterator[PhaseCost]:
    """Every phase, in order."""
    blueprint, config = shapes.blueprint, shapes.blueprint.config
    steps = steps_of(blueprint)
    names = [step.name for step in steps]
    if config.pretrain.mode == "centralized":
        seconds = None if watch is None else watch.at_a_server()
        yield PhaseCost("pretrain", config.pretrain.rounds, 0, seconds=seconds)
    measures = config.evaluate.enabled and config.pretrain.mode != "none"
    if measures and "pretrain" not in names:
        yield _measuring(watch)
    for place, step in enumerate(steps):
        yield _cost(shapes, watch, step, place)
        if measures and step.name == "pretrain":
            yield _measuring(watch)
    if config.pools.enabled and "evaluate" not in names:
        seconds = None if watch is None else blueprint.clients * watch.scored()
        yield PhaseCost("evaluate", 1, blueprint.clients, seconds=seconds)


def _measuring(watch: StopWatch | None) -> PhaseCost:
    return PhaseCost("measure", 1, 0, seconds=None if watch is None else watch.measuring())


def _cost(shapes: _Shapes, watch: StopWatch | None, step: Step, place: int) -> PhaseCost:
    """What a step of the program will take."""
    config = shapes.blueprint.config
    number = 1 if step.name == "sketch" else 0
    form, state = step.form(number), shapes.state.at(Place(place, number))
    count, shape = len(form.cohort), form.shape
    rounds, most = step.rounds, None
    if step.name == "sketch":
        rounds, most = min(rounds, _SETTLES), rounds
    down, up = count * payload_bytes(step.ask(state)), count * 8 * _fields(shape)
    seconds = None if watch is None else count * watch.answer(step, place, number)
    if config.security.protection != "plain":
        grouped = form.opening.group_size is not None
        size = max(group_sizes(count, config.security.group_size)) if grouped else count
        groups = max(1, round(count / size))
        more_down, more_up = sum_cost(config, shape, size)
        down, up = down + groups * more_down, groups * more_up
        if watch is not None and seconds is not None:
            seconds += groups * watch.of_sum(config, shape, size)
    shapes.largest_upload = max(shapes.largest_upload, 8 * _fields(shape))
    return PhaseCost(step.name, rounds, count, down, up, seconds, most)


def _fields(shape: BlockShape) -> int:
    """How many integers one client sends."""
    return sum(shape.fields(block) for block in range(shape.blocks))


class _Shapes:
    """A state of the shapes that a run has, how many numbers of it a process holds, and the
    largest upload that was met on the way.
    """

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
