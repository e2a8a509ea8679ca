"""A state with all that any step of a run asks by: of the right shapes, and holding zeros."""

from __future__ import annotations

import torch

from secure_fl.federation.factory import Blueprint
from secure_fl.federation.state import Place, State
from secure_fl.models.state import to_vector


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
