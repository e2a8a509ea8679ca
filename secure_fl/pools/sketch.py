"""The sketch start: group clients by the mean of their examples at unit length, by k-means over
sums in which each client is one-hot.

The server sends centres; each client adds its sketch to the block of its nearest centre and zeros
to the others; only the blocks' sums come back. Several k-means run side by side from random starts,
and the tightest is kept.

**What the sums hide, and what not.** They hide who is in which group. They do not hide a sketch: it
stands still from round to round, so a client that moves between two rounds is the difference of two
sums, and a closed sum is the total less the others, whatever the fewest members are. Sketches that
must not be read are therefore released with noise of their own first (`privacy.private_sketch`),
and k-means is post-processing; without that noise they are an open experiment's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from secure_fl.seeds import generator_of
from secure_fl_kernels.reference import normalize

_SPLIT = 1e-3
"""How far a split centre moves, in root mean square distances: above rounding, below spacing."""


def sketch_of(features: Tensor, labels: Tensor | None = None, classes: int = 0) -> Tensor:
    """A client's sketch without noise: the mean of its examples `[N, F]`, each at unit length.

    With `labels` `[N]`, a sketch `[classes · F]`: the same mean split by label, so that its parts
    sum to the plain one.
    """
    unit = normalize(features.double())
    if labels is None:
        return unit.mean(0).float()
    member = functional.one_hot(labels, classes).double()
    return (member.T @ unit / len(unit)).reshape(-1).float()


def without_labels(sketch: Tensor, width: int) -> Tensor:
    """Sketches `[..., classes · F]` as plain ones `[..., F]` with F = `width`."""
    plain: Tensor = sketch.unflatten(-1, (-1, width)).sum(-2)
    return plain


def first_centres(starts: int, pools: int, dimension: int, radius: float, seed: int) -> Tensor:
    """`[starts, pools, dimension]` random directions, as long as centred sketches in the mean."""
    generator = generator_of(seed, "sketch", "first")
    return radius * normalize(torch.randn(starts, pools, dimension, generator=generator))


def nearest_centre(sketch: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index and squared distance `[starts]` of the centre `[starts, pools, F]` nearest to `[F]`."""
    distance = (centres.double() - sketch.double()).square().sum(-1)
    return distance.argmin(-1), distance.min(-1).values


def tightest_start(distortion: Tensor, counts: Tensor, fewest: int = 1) -> int:
    """Index of the start of smallest distortion `[starts, pools]`, among those that give every pool
    `fewest` sketches or more, if any does.

    With noise k-means likes to give a stray sketch a pool of its own, which would never be opened;
    of digits in rotation groups it then found all groups in 15 of 24 draws instead of 19
    (`bench/private_sketch.py`, ε = 1).
    """
    filled = counts.min(1).values >= fewest
    total = distortion.sum(1)
    return int((torch.where(filled, total, torch.inf) if bool(filled.any()) else total).argmin())


def moved_centres(sums: Tensor, counts: Tensor, distortion: Tensor, seed: int) -> Tensor:
    """Lloyd's step from the opened sums: new centres `[starts, pools, S]`.

    A block nobody joined takes over half of the block with the largest distortion: both centres are
    put close to that block's mean, on opposite sides along a random direction, so the next vote
    cuts it in two. (A fresh random centre would lie further from every sketch than the mean it
    competes with, and stay empty.)

    Args:
        sums: of centred sketches, `[starts, pools, S]`.
        counts, distortion: number of sketches and sum of their squared distances,
            `[starts, pools]`.
    """
    generator = torch.Generator().manual_seed(seed)
    centres, distortion = sums / counts.clamp_min(1)[..., None], distortion.clone()
    for start, pool in (counts == 0).nonzero().tolist():
        worst = int(distortion[start].argmax())
        drawn = torch.randn(1, centres.shape[-1], generator=generator, dtype=centres.dtype)
        spread = (distortion[start, worst] / counts[start, worst].clamp_min(1)).sqrt()
        step = _SPLIT * spread * normalize(drawn)[0]
        centres[start, pool] = centres[start, worst] + step
        centres[start, worst] -= step
        distortion[start, worst] /= 4
        distortion[start, pool] = distortion[start, worst]
        counts = counts.clone()
        counts[start, pool] = counts[start, worst]
    return centres.float()
