"""Normalisation layers by name; batch statistics couple examples, so every model also exists with GroupNorm."""

from __future__ import annotations

from math import gcd
from typing import Literal

from torch import nn

Norm = Literal["group", "batch"]
_GROUPS = 8


def norm_layer(norm: Norm, channels: int, dimensions: int) -> nn.Module:
    """A layer for `[N, channels, ...]` with `dimensions` trailing axes (0 for vectors)."""
    if norm == "group":
        return nn.GroupNorm(gcd(_GROUPS, channels), channels)
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
