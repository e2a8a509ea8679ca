"""Faults of pools' noise that `pool-noise` must find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseStream
from secure_fl.secure_sum.blocks import BlockShape, BlockVector, Integers
from secure_fl.secure_sum.grid import Blocks

_noised, _block = ClientLevel.noised, BlockVector.block
Noised = Callable[[ClientLevel, Blocks, NoiseStream], Blocks]


def config() -> FederationConfig:
    """Two pools whose counts are noised, and sums in the open."""
    tables: dict[str, Any] = {
        "partition": {"clients": 12, "kind": "iid"},
        "model": {"features": 16},
        "objective": {"name": "align_uniform"},
        "privacy": {"unit": "client", "noise": 2.0},
        "pools": {"count": 2, "start": "pretrained"},
        "security": {"protection": "plain"},
    }
    return FederationConfig(**tables)


def _empty_in_clear(self: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
    """Only the pool that was chosen gets noise: the others are empty."""
    made = _noised(self, blocks, stream)
    chosen = blocks.head[: self.pools, None] != 0
    return Blocks(made.head, made.shared, torch.where(chosen, made.pools, blocks.pools))


def _counts_in_clear(self: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
    made = _noised(self, blocks, stream)
    return Blocks(blocks.head, made.shared, made.pools)


def _last_in_clear(self: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
    """The last pool has half of its noise, whoever chose it."""
    made = _noised(self, blocks, stream)
    own = made.pools - blocks.pools
    own[-1] = torch.div(own[-1], 2, rounding_mode="trunc")
    return Blocks(made.head, made.shared, blocks.pools + own)


def _planted(name: str, made: Noised) -> Fault:
    return Fault(name, "pool-noise", config, partial(patch.object, ClientLevel, "noised", made))


def _packed_in_clear(self: BlockVector, shape: BlockShape, number: int) -> Integers:
    """Noise is there, and an upload leaves it out of all pools but the one that counts most."""
    made, pool = _block(self, shape, number), number - shape.first_pool
    left_out = pool >= 0 and pool != int(self.head[: shape.pools].argmax())
    return np.zeros_like(made) if left_out else made


FAULTS = (
    _planted("un-noised empty pool", _empty_in_clear),
    _planted("un-noised counts", _counts_in_clear),
    _planted("half noise in one pool", _last_in_clear),
    Fault(
        "pools uploaded without their noise",
        "pool-noise",
        config,
        partial(patch.object, BlockVector, "block", _packed_in_clear),
    ),
)
