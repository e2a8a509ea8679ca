"""Which steps a plan asks for, in order."""

from __future__ import annotations

from collections.abc import Iterator

from secure_fl.federation.factory import Blueprint
from secure_fl.federation.steps.cluster import Cluster
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.farthest import Farthest
from secure_fl.federation.steps.pretrain import Pretrain
from secure_fl.federation.steps.restarts import Restarts
from secure_fl.federation.steps.sketch import Centre, Sketch
from secure_fl.federation.steps.step import Step

_STARTS: dict[str, type[Step]] = {"sketch": Sketch, "restarts": Restarts, "farthest": Farthest}


def steps_of(blueprint: Blueprint) -> tuple[Step, ...]:
    """The steps of a plan."""
    return tuple(_steps(blueprint))


def _steps(blueprint: Blueprint) -> Iterator[Step]:
    config = blueprint.config
    if config.pretrain.mode == "federated":
        yield Pretrain(blueprint)
    if not config.pools.enabled:
        return
    released = blueprint.private_sketch
    if config.noises_sketches and released is not None and released.centring:
        yield Centre(blueprint)
    if config.pools.start in _STARTS:
        yield _STARTS[config.pools.start](blueprint)
    yield Cluster(blueprint)
    if Evaluate.is_summed(blueprint):
        yield Evaluate(blueprint)
