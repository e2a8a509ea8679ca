"""The sketch start: group clients by their mean unit embedding, by k-means over sums in which each client is one-hot.

The server sends centres; each client adds its sketch to the block of its nearest centre and zeros to the others; only the
blocks' sums come back. Several k-means run side by side from random starts, and the tightest is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl.seeds import derive_seed
from secure_fl_kernels.reference import normalize


def sketch_of(features: Tensor) -> Tensor:
    """A client's sketch `[F]`: the mean of its examples' unit embeddings `[N, F]`."""
    return normalize(features.double()).mean(0).float()


def first_centres(starts: int, pools: int, dimension: int, radius: float, seed: int) -> Tensor:
    """`[starts, pools, dimension]` random directions of length `radius`, the root mean square of the centred sketches."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "sketch", "first"))
    return radius * normalize(torch.randn(starts, pools, dimension, generator=generator))


def nearest_centre(sketch: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index and squared distance `[starts]` of the centre `[starts, pools, F]` nearest to a centred sketch `[F]`."""
    distance = (centres.double() - sketch.double()).square().sum(-1)
    return distance.argmin(-1), distance.min(-1).values


def moved_centres(sums: Tensor, counts: Tensor, centres: Tensor, radius: float, seed: int) -> Tensor:
    """Lloyd's step from the opened sums `[starts, pools, F]` and counts `[starts, pools]`; an empty pool gets a new direction."""
    generator = torch.Generator().manual_seed(seed)
    fresh = radius * normalize(torch.randn(centres.shape, generator=generator))
    held = counts[..., None]
    return torch.where(held > 0, sums / held.clamp_min(1), fresh.to(sums)).float()
