"""The sketch start: group clients by the mean of their examples at unit length, by k-means over
sums in which each client is one-hot.

A sketch has one part, or one for each label: what the client's examples of that label look like.
Parts have weights, 0 where the client has no such examples, and two clients, or a client and a
centre, are compared by the parts they share. So clients of one kind who hold different labels are
not told apart by what they hold.

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

FEWEST_OF_A_LABEL = 3
"""Examples of a label from which a part of an exact sketch is made: a mean of less is a stray."""
LIGHTEST = 1e-6
"""Below the weight of any label: a client's labels share a weight of one."""
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


def parts_of(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """A client's sketch in parts, without noise: for each label the mean of its examples `[N, F]`,
    each at unit length, `[classes · F]`, and the parts' weights `[classes]`.
    """
    unit = normalize(features.double())
    member = functional.one_hot(labels, classes).double()
    return parts_from(member.T @ unit, member.sum(0), FEWEST_OF_A_LABEL)


def parts_from(sums: Tensor, counts: Tensor, fewest: float) -> tuple[Tensor, Tensor]:
    """Means `[classes · F]` and weights `[classes]`, from sums `[classes, F]` over examples and
    their numbers `[classes]`, with noise or without.

    Labels of at least `fewest` examples weigh the same, the others nothing; of a client that has
    no such label, the one it has most of counts.
    """
    kept = counts >= counts.max().clamp_max(fewest)
    means = sums / counts.clamp_min(float(counts.max().clamp(1, fewest)))[:, None]
    return (kept[:, None] * means).flatten().float(), (kept / kept.sum()).float()


def each_number(weights: Tensor, width: int) -> Tensor:
    """Parts' weights `[..., parts]` as those of a sketch's numbers `[..., width]`; ones where there
    is one part, `[..., 0]`.
    """
    parts = weights.shape[-1]
    if not parts:
        return weights.new_ones(*weights.shape[:-1], width)
    return weights.repeat_interleave(width // parts, dim=-1)


def without_labels(sketch: Tensor, width: int) -> Tensor:
    """Sketches `[..., classes · F]` as plain ones `[..., F]` with F = `width`."""
    plain: Tensor = sketch.unflatten(-1, (-1, width)).sum(-2)
    return plain


def first_centres(
    starts: int, pools: int, dimension: int, radius: float, seed: int, parts: int = 1
) -> Tensor:
    """`[starts, pools, dimension]` random directions, as long as centred sketches in the mean.

    A centre's parts point the same way: what sets groups apart often moves all labels alike.
    """
    generator = generator_of(seed, "sketch", "first")
    drawn = torch.randn(starts, pools, dimension // parts, generator=generator)
    return radius * normalize(drawn).repeat(1, 1, parts)


def nearest_centre(
    sketch: Tensor, centres: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Index and squared distance `[starts]` of the centre `[starts, pools, F]` nearest to `[F]`,
    whose numbers weigh `weights` `[F]`, by default one each.
    """
    squares = (centres.double() - sketch.double()).square()
    distance = (squares if weights is None else squares * weights.double()).sum(-1)
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


def moved_centres(
    sums: Tensor, counts: Tensor, distortion: Tensor, seed: int, weights: Tensor | None = None
) -> Tensor:
    """Lloyd's step from the opened sums: new centres `[starts, pools, S]`.

    A block nobody joined takes over half of the block with the largest distortion: both centres are
    put close to that block's mean, on opposite sides along a random direction, so the next vote
    cuts it in two. (A fresh random centre would lie further from every sketch than the mean it
    competes with, and stay empty.)

    Args:
        sums: of centred sketches, times their weights, `[starts, pools, S]`.
        counts, distortion: number of sketches and sum of their squared distances,
            `[starts, pools]`.
        weights: sums of the numbers' weights, `[starts, pools, S]`; the counts where all weigh one.
            A number that nobody in a block has stays at the mean of all, which is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = counts.clamp_min(1)[..., None] if weights is None else weights.clamp_min(LIGHTEST)
    centres, distortion = sums / shares, distortion.clone()
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
