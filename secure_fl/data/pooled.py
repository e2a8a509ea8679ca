"""Examples in a few numbers, without any model: what sketches are made of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SIDE, _SEGMENTS = 7, 8
_AT_A_TIME = 4096
"""Examples pooled at a time, since they are taken to double precision for it."""


def pooled_values(x: Tensor) -> Tensor:
    """Each example `[N, *shape]` as a short row, float64 `[N, F]`, from its own values only.

    Images: means over equal windows, at most 7 × 7 a channel. Series: means and mean squares over
    at most 8 segments, and the magnitudes of the spectrum over at most 8 bands, a channel; together
    they tell apart where something happens, how strongly, and how fast it goes. Vectors: as they
    are, on one scale (`data.scaling`), and a coordinate of one: rows are compared by direction,
    which then tells lengths apart too.
    """
    return torch.cat([_pooled(part.double()) for part in x.split(_AT_A_TIME)])


def pooled_width(shape: tuple[int, ...]) -> int:
    """F for examples of `shape`."""
    return pooled_values(torch.zeros(1, *shape)).shape[1]


def _pooled(x: Tensor) -> Tensor:
    """In double precision: rounding by other rows stays far below a released sketch's grid."""
    if x.ndim == 4:
        return functional.avg_pool2d(
            x, (_window(x.shape[2]), _window(x.shape[3])), ceil_mode=True
        ).flatten(1)
    if x.ndim == 3:
        spectrum = torch.fft.rfft(x, norm="ortho").abs()[..., 1:]
        return torch.cat(
            [_segments(part) for part in (x, x.square(), spectrum) if part.shape[-1]], dim=2
        ).flatten(1)
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def _window(side: int) -> int:
    return -(-side // _SIDE)


def _segments(x: Tensor) -> Tensor:
    return functional.adaptive_avg_pool1d(x, min(_SEGMENTS, x.shape[-1]))
