"""Small data and configurations that every test can afford."""

from __future__ import annotations

from typing import Any

import torch

from secure_fl import Callback, Result
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.federation.run_folder.metrics import RoundRecord


class StopAfter(Callback):
    """Raise after `rounds` rounds, or in the middle of the next one; `at_end`: when its last client
    has answered.
    """

    def __init__(self, rounds: int, *, midway: bool = False, at_end: bool = False) -> None:
        self.left, self.midway, self.at_end = rounds, midway, at_end

    def on_round(self, record: RoundRecord) -> None:
        self.left -= 1
        if self.left == 0 and not self.midway:
            raise KeyboardInterrupt

    def on_client(self, done: int, total: int) -> None:
        if self.left <= 0 and self.midway and (done == total or not self.at_end):
            raise KeyboardInterrupt


def weights(result: Result) -> torch.Tensor:
    """The encoder's and all pools' parameters, one after the other."""
    return torch.cat(
        [
            p.detach().flatten()
            for model in (result.encoder, *result.pools)
            for p in model.parameters()
        ]
    )


def make_images(count: int, seed: int = 0, classes: int = 3) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    for label in range(classes):
        x[y == label, :, 2 * label : 2 * label + 2, :4] += 0.7
    return Dataset.from_arrays(x, y, classes=classes, name="stripes")


def tiny_config(**tables: dict[str, Any]) -> FederationConfig:
    """Four clients in two rotation groups, a few short rounds, sums in the open; tables given are
    laid over it.
    """
    base: dict[str, dict[str, Any]] = {
        "partition": {"kind": "rotation", "clients": 4, "groups": 2},
        "model": {"encoder": "convnet", "features": 16},
        "pretrain": {"rounds": 2, "local_epochs": 1, "batch_size": 16, "lr": 0.05},
        "pools": {
            "count": 2,
            "rounds": 3,
            "local_epochs": 3,
            "batch_size": 16,
            "lr": 0.1,
            "warmup_rounds": 1,
            "sketch_starts": 4,
        },
        "evaluate": {"probe_epochs": 5, "knn": 5},
        "security": {"protection": "plain"},
    }
    return FederationConfig(
        **{name: {**base.get(name, {}), **tables.get(name, {})} for name in base | tables}
    )
