"""What a run will take, before it takes it: time, bytes and memory, phase by phase.

Bytes follow from what is sent: answers, sums and models by their own layouts, with all that does
not grow with the model read off small rounds of the parties. Time is
an estimate: a client's work on a few batches of noise, and a sum of a few clients, scaled. No
example of anybody's is touched.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from secure_fl.config.cohorts import group_sizes
from secure_fl.estimate.small_federation import Size
from secure_fl.estimate.stop_watch import StopWatch, sample_state
from secure_fl.estimate.sum_costs import Federated, SumCosts, fields_of
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.step import Step
from secure_fl.federation.steps.view_moments import ViewMomentSums

if TYPE_CHECKING:
    from secure_fl.run import Federation

_LOOKED_AT = 100
"""Rounds of a step whose cohorts are compared."""
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
        """Bytes of all rounds, to the clients and from them."""
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
        """Bytes of all phases, to the clients and from them."""
        return sum(phase.bytes for phase in self.phases)

    @property
    def seconds(self) -> float | None:
        """Seconds of all phases; None where time was not estimated."""
        if any(phase.seconds is None for phase in self.phases):
            return None
        return sum(phase.rounds * (phase.seconds or 0.0) for phase in self.phases)


def estimate(federation: Federation, *, timed: bool = True) -> Estimate:
    """What a run of this federation will take; in a moment, where time is not asked for."""
    config, factory, clients = federation.config, federation.factory, federation.clients
    shapes, watch = _Shapes(factory), StopWatch(factory, clients) if timed else None
    phases = tuple(_phases(shapes, watch))
    sealed = 0 if config.security.protection == "plain" else 12 * shapes.largest_upload
    held = 4 * shapes.fields * 6 + 8 * shapes.fields * 4 + sealed
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Estimate(phases, peak + held, 3 * 4 * shapes.fields + 2**20)


def _phases(shapes: _Shapes, watch: StopWatch | None) -> Iterator[PhaseCost]:
    """Every phase, in order."""
    factory, config = shapes.factory, shapes.factory.facts.config
    steps = steps_of(factory)
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
        seconds = None if watch is None else factory.facts.clients * watch.scored()
        yield PhaseCost("evaluate", 1, factory.facts.clients, seconds=seconds)


def _measuring(watch: StopWatch | None) -> PhaseCost:
    return PhaseCost("measure", 1, 0, seconds=None if watch is None else watch.measuring())


def _cost(shapes: _Shapes, watch: StopWatch | None, step: Step, place: int) -> PhaseCost:
    """What a step of the program will take."""
    config = shapes.factory.facts.config
    numbers = _rounds_that_differ(step)
    forms = [step.form(number) for number in numbers]
    form = forms[-1]
    count, shape = len(form.cohort), form.shape
    rounds, most = step.rounds, None
    if step.name == "sketch":
        rounds, most = min(rounds, _SETTLES), rounds
    grouped = form.opening.group_size is not None
    each = max(group_sizes(count, config.security.group_size)) if grouped else count
    size = Size(max(1, round(count / each)), each)
    during, after = shapes.held(place), shapes.held(place + 1)
    mean = during + (after - during) // max(1, rounds)  # after the last round there is more
    ends = 1 / max(1, rounds) if shapes.is_last(place) else 0.0
    clients = shapes.factory.facts.clients
    federated = Federated(config, clients, during, mean, ends, *_late(step, rounds, clients, place))
    bytes_of = [shapes.sums.of(federated, form, size) for form in forms]
    down, up = (round(fmean(way)) for way in zip(*bytes_of, strict=True))
    seconds = None
    if watch is not None:
        seconds = count * fmean(watch.answer(step, place, number) for number in numbers)
        seconds += size.groups * fmean(watch.of_sum(config, form, each) for form in forms)
    shapes.largest_upload = max(shapes.largest_upload, 8 * fields_of(shape))
    return PhaseCost(step.name, rounds, count, down, up, seconds, most)


def _rounds_that_differ(step: Step) -> tuple[int, ...]:
    """Rounds of a step whose mean stands for all: of a sketch start one of k-means, of view moments
    both.
    """
    if isinstance(step, ViewMomentSums):
        return tuple(range(step.rounds))
    return (1,) if step.name == "sketch" else (0,)


def _late(step: Step, rounds: int, clients: int, place: int) -> tuple[float, float]:
    """How many clients of a round, in the mean, were not in the one before, and which share of
    rounds has any; read off the first rounds of the step. Before these there may have been others.
    """
    cohorts = [set(step.form(number).cohort) for number in range(min(rounds, _LOOKED_AT))]
    if not cohorts:
        return 0.0, 0.0
    first = len(cohorts[0]) * (1 - len(cohorts[0]) / clients) if place else 0.0
    late = [first, *(len(after - before) for before, after in pairwise(cohorts))]
    return sum(late) / len(late), sum(min(1.0, each) for each in late) / len(late)


class _Shapes:
    """A state of a run's shapes, numbers held, the largest upload, and costs of rounds."""

    def __init__(self, factory: Factory) -> None:
        self.factory, config = factory, factory.facts.config
        self.largest_upload, self.sums = 0, SumCosts()
        self._names = [step.name for step in steps_of(factory)]
        self.state = sample_state(factory)
        held = ("model", "encoder", "pools.shared", "pools.pooled")
        trained = config.pretrain.mode in ("federated", "centralized")
        lengths = {
            name: tensor.numel() for name, tensor in self.state.tensors.items() if name in held
        }
        self._trained = trained
        self.fields = sum(lengths.values()) - (0 if trained else lengths["model"])

    def is_last(self, place: int) -> bool:
        """Whether no step follows."""
        return place + 1 == len(self._names)

    def held(self, place: int) -> int:
        """Bytes of the models in the rounds of a step, by its place; behind the last, at the end.

        What begins with a step is there from then on; of a sketch start, its sums while it runs.
        """
        name = self._names[place] if place < len(self._names) else ""
        without = [] if self._trained else ["model"]
        if name != "sketch":
            without += ["sketch.mean", "sketch.centres"]
        if name in ("pretrain", "centre", "sketch"):
            without += ["guide.mean", "guide.centres", "pools.shared", "pools.pooled"]
        if name in ("pretrain", "centre"):
            without.append("sketch.public_centre")
        if name == "pretrain":
            without.append("encoder")
        held = [each for each in without if each in self.state.tensors]
        return len(self.state.with_values(without=held).encode())
