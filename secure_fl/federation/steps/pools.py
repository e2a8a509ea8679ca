"""Pools in the replicated state: how they are drawn, read and put back, and the groups that guide
them.
"""

from __future__ import annotations

import torch

from secure_fl.federation.asks import Guide
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.state import State
from secure_fl.models.state import load_vector
from secure_fl.pools.pool_set import PoolSet


def draw_pools(factory: Factory, state: State, attempt: int = 0) -> PoolSet:
    """K models with independent random heads. Encoders pre-trained, or for random starts
    independent too.
    """
    config = factory.facts.config.pools
    random_encoders = config.start in ("random", "restarts")
    shared, pooled = torch.empty(0), []
    for k in range(config.count):
        model = factory.pool_model(factory.facts.seed("pools", attempt, k))
        if not random_encoders:
            load_vector(model.encoder, state.tensors["encoder"])
        part, top = factory.pool_layout.parts(model)
        shared = part if k == 0 else shared
        pooled.append(top)
    return PoolSet(shared, torch.stack(pooled))


def get_pools(state: State) -> PoolSet:
    """The pools in the state."""
    return PoolSet(state.tensors["pools.shared"], state.tensors["pools.pooled"])


def with_pools(state: State, pools: PoolSet) -> State:
    """The state with other pools."""
    return state.with_values({"pools.shared": pools.shared, "pools.pooled": pools.pooled})


def get_guide(state: State) -> Guide | None:
    """The groups that the sketch start found, or None."""
    if "guide.mean" not in state.tensors:
        return None
    return Guide(state.tensors["guide.mean"], state.tensors["guide.centres"])
