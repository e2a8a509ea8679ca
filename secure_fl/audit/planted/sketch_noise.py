"""Faults of released sketches that `sketch-noise` must find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy import private_sketch
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.private_sketch import GRID

_released = private_sketch._released
Released = Callable[[Tensor, int, float, NoiseStream], Tensor]


def config() -> FederationConfig:
    """A protected run that claims nothing but its sketches' ε."""
    tables: dict[str, Any] = {
        "partition": {"clients": 9, "kind": "iid"},
        "model": {"features": 16},
        "pools": {"count": 3, "start": "sketch"},
        "security": {"protection": "masked"},
    }
    return FederationConfig(**tables)


def _scaled(factor: float, total: Tensor, size: int, noise: float, stream: NoiseStream) -> Tensor:
    return _released(total, size, factor * noise, stream)


def _floats(total: Tensor, size: int, noise: float, stream: NoiseStream) -> Tensor:
    """The right noise, added as floats: their low bits tell sums apart."""
    normal = torch.special.ndtri(torch.from_numpy(stream.uniform(total.shape[1])))
    made: Tensor = (total.sum(0).double() / GRID + noise * normal) / size
    return made


def _longer(total: Tensor, size: int, noise: float, stream: NoiseStream) -> Tensor:
    """Every example counts five times."""
    return _released(5 * total, size, noise, stream)


def _planted(name: str, made: Released) -> Fault:
    plant = partial(patch.object, private_sketch, "_released", made)
    return Fault(name, "sketch-noise", config, plant)


FAULTS = (
    _planted("sketches without noise", partial(_scaled, 1e-4)),
    _planted("half noise on sketches", partial(_scaled, 0.5)),
    _planted("sketches noised as floats", _floats),
    _planted("examples that count five times in a sketch", _longer),
)
