"""Local training whose model tells which inputs it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import nn

from secure_fl.audit.check import Fault
from secure_fl.audit.planted.example_noise import unclipped
from secure_fl.config import FederationConfig
from secure_fl.privacy.mechanisms import per_example
from secure_fl.privacy.mechanisms.mechanism import write_gradients


def heads() -> FederationConfig:
    """Pools on digits, trained by labels for long, with so much noise that ε is far below 1."""
    pools = {"count": 1, "rounds": 4, "local_epochs": 12, "batch_size": 100_000, "lr": 0.1}
    return FederationConfig(
        partition={"clients": 24},
        pretrain={"mode": "none"},
        model={"features": 32},
        pools={**pools, "start": "random"},
        privacy={"unit": "example", "noise": 60.0, "epsilon": 500.0},
    )


@contextmanager
def in_the_clear() -> Iterator[None]:
    """Gradients are neither clipped nor noised, but for 10⁻⁹ of the noise."""

    def written(model: nn.Module, sums: Any, deviation: float, units: float, stream: Any) -> None:
        write_gradients(model, sums, 1e-9 * deviation, units, stream)

    with unclipped(), patch.object(per_example, "write_gradients", written):
        yield


_PLANTED: tuple[tuple[str, Callable[[], FederationConfig], Callable[[], Any]], ...] = (
    ("training in the clear", heads, in_the_clear),
)
FAULTS = tuple(Fault(name, "inputs", config, plant) for name, config, plant in _PLANTED)
"""Each must be called broken by `inputs`."""
