"""The fixed maps that make a short vector of an example, for sketches: no data made them, and each
vector follows from its own example alone.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from secure_fl.data.pooled import pooled_values, pooled_width
from secure_fl.models.scattering import Scattering
from secure_fl.models.view_features import ViewFeatures

Vectors = Literal["examples", "scattering", "features"]
"""As `pools.sketch_of`, but for the encoder, which is no fixed map."""


class FixedMap(nn.Module):
    """`fixed_vectors` of one kind, as a module."""

    def __init__(self, kind: Vectors) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return fixed_vectors(self.kind, x)


def fixed_vectors(kind: Vectors, x: Tensor) -> Tensor:
    """Examples `[N, *shape]` as rows `[N, F]`: pooled values, scattering, or random features of it.

    Rows of a table are pooled whatever the kind: there is nothing to scatter.
    """
    if kind == "examples" or x.ndim == 2:
        return pooled_values(x)
    with torch.no_grad():
        made: Tensor = _map(kind, tuple(x.shape[1:]))(x.float().cpu())
    return made


def fixed_width(kind: Vectors, shape: tuple[int, ...]) -> int:
    """F for examples of `shape`."""
    if kind == "examples" or len(shape) == 1:
        return pooled_width(shape)
    return int(_map(kind, shape).width)  # type: ignore[arg-type]


@cache
def _map(kind: Vectors, shape: tuple[int, ...]) -> nn.Module:
    """Drawn once: a map has no state, and the public seed is the same for everybody."""
    return Scattering(shape) if kind == "scattering" else ViewFeatures(shape)
