"""NT-Xent within disjoint groups by batched products: losses, each group's gradient, and the
gradient's squared norm.

A group of m examples has 2m rows; with P the softmax of each row's similarities without itself and
H = P + Pᵀ − 2·partner:
    ∂loss/∂z_i = (1/2mτ) Σ_k H_ik z_k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import tangent, unit


def forward(
    first: Tensor, second: Tensor, size: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(losses `[G]`, each group's gradient by both views `[G · size, D]`, its squared
    norm `[G]`).
    """
    shape = (-1, size, first.shape[1])
    x = torch.cat([first.reshape(shape), second.reshape(shape)], 1)
    flat, inverse = unit(x.flatten(0, 1))
    z = flat.reshape(x.shape)
    itself = torch.arange(2 * size, device=x.device)
    partner = itself.roll(size)
    s = torch.bmm(z, z.mT).div_(temperature)
    positive = s[:, itself, partner]
    s[:, itself, itself] = -torch.inf
    log_sums = s.logsumexp(2)
    p = s.sub_(log_sums[:, :, None]).exp_()
    h = p + p.mT
    h[:, itself, partner] -= 2
    pull = torch.bmm(h, z).div_(2 * size * temperature).flatten(0, 1)
    gradient = tangent(pull, flat, inverse).reshape(x.shape)
    by_first, by_second = (
        part.reshape(first.shape).clone() for part in (gradient[:, :size], gradient[:, size:])
    )
    return (log_sums - positive).mean(1), by_first, by_second, gradient.square().sum((1, 2))
