"""Vectors that carry their own number, dealt out to clients."""

from __future__ import annotations

from typing import Any

import torch

from secure_fl import Dataset, FederationConfig
from secure_fl.data.partitions import ClientData, partition

OPEN: dict[str, Any] = {"security": {"protection": "plain"}, "pools": {"enabled": False}}


def numbered(count: int, **columns: Any) -> Dataset:
    """Vectors that carry their own number."""
    x = torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 2)
    return Dataset.from_arrays(x, columns.pop("y", torch.arange(count) % 4), **columns)


def numbers(*parts: Dataset) -> set[int]:
    return {int(n) for part in parts for n in part.x[:, 0].tolist()}


def deal(
    data: Dataset, table: dict[str, Any] | None = None, privacy: str = "none", **spec: Any
) -> list[ClientData]:
    return partition(
        [(data, None)],
        FederationConfig(data=table or {}, partition=spec, privacy={"unit": privacy}, **OPEN),
    )
