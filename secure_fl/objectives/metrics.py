"""How good a representation is without labels, by geometry of L2-normalised, uncentred features."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from secure_fl.objectives.losses import align_loss
from secure_fl_kernels.reference import normalize

_BLOCK = 2048
"""Rows of the similarity matrix held at once: 2048 × 10,000 float64 is 164 MB."""


def alignment(h1: Tensor, h2: Tensor) -> float:
    """Mean squared distance between two views' unit features `[N, F]`; 0 is best."""
    return float(align_loss(h1.double(), h2.double()))


def uniformity(h: Tensor, t: float = 2.0) -> float:
    """log mean exp(−t‖ĥᵢ − ĥⱼ‖²) over distinct pairs of `[N, F]`, in blocks; about −2t on a
    high-dimensional sphere is best.
    """
    unit = normalize(h.double())
    square = unit.square().sum(1)
    total = 0.0
    for start in range(0, len(unit), _BLOCK):
        stop = min(start + _BLOCK, len(unit))
        distance = square[start:stop, None] + square - 2 * unit[start:stop] @ unit.T
        kernel = torch.exp(-t * distance)
        total += float(kernel.sum() - kernel.diagonal(start).sum())
    return log(total / (len(unit) * (len(unit) - 1)))


def effective_rank(h: Tensor) -> float:
    """exp of the entropy of the singular values' shares, for `[N, F]`: between 1 and min(N, F), 0
    for zero features. Source: Roy & Vetterli 2007.
    """
    singular = torch.linalg.svdvals(normalize(h.double()))
    if float(singular.sum()) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.exp(-torch.xlogy(share, share).sum()))
