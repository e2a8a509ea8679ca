"""Which steps a plan asks for, in order."""

from __future__ import annotations

from collections.abc import Iterator

from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.steps.cluster import Cluster
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.farthest import Farthest
from secure_fl.federation.steps.pretrain import Pretrain
from secure_fl.federation.steps.restarts import Restarts
from secure_fl.federation.steps.sketch import Centre, Sketch
from secure_fl.federation.steps.step import Step
from secure_fl.federation.steps.view_moments import ViewMomentSums

_STARTS: dict[str, type[Step]] = {"sketch": Sketch, "restarts": Restarts, "farthest": Farthest}


def steps_of(factory: Factory) -> tuple[Step, ...]:
    """The steps of a plan."""
    return tuple(_steps(factory))


def _steps(factory: Factory) -> Iterator[Step]:
    config = factory.facts.config
    if config.sketches_first:
        yield from _starting(factory)
    if config.pretrain.trains:
        yield Pretrain(factory)
    if config.pretrain.sums_moments:
        yield ViewMomentSums(factory)
    if not config.pools.enabled:
        return
    if not config.sketches_first:
        yield from _starting(factory)
    yield Cluster(factory)
    if Evaluate.is_summed(factory.facts):
        yield Evaluate(factory)


def _starting(factory: Factory) -> Iterator[Step]:
    """The steps that find what pools start from."""
    config, released = factory.facts.config, factory.sketch.released
    if config.noises_sketches and released is not None and released.centring:
        yield Centre(factory)
    if config.pools.start in _STARTS:
        yield _STARTS[config.pools.start](factory)
