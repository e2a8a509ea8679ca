"""Normalisation layers by name. Batch statistics couple examples; GroupNorm does not."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["group", "batch"]
_MOST_GROUPS = 8
_LEAST_CHANNELS = {0: 8, 1: 4, 2: 4}
"""Channels a group needs, by trailing axes: two of a vector, which has no more, would become ±1."""


def norm_layer(norm: Norm, channels: int, dimensions: int) -> nn.Module:
    """A layer for `[N, channels, ...]` with `dimensions` trailing axes (0 for vectors)."""
    if norm == "group":
        most, least = range(1, _MOST_GROUPS + 1), _LEAST_CHANNELS[dimensions]
        fitting = [n for n in most if channels % n == 0 and channels // n >= least]
        return nn.GroupNorm(max(fitting, default=1), channels)
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
