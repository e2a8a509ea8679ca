"""Rows of every length that a dtype has, zero and the shortest among them, and what their losses'
gradients must be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from secure_fl_kernels import functional
from secure_fl_kernels.subspace import Subspace

Loss = Callable[[Tensor, Tensor], Tensor]

WIDTH = 8
DTYPES = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
LARGEST_HALF = 3e4
LONG_ENOUGH = 1e-3
"""From this length on a row's gradient, at most 4/τ over its length here, is within float16."""


def losses() -> dict[str, Loss]:
    own = Subspace(torch.tensor([1, 3]))
    return {
        "nt_xent_dsr": lambda a, b: torch.stack(functional.nt_xent_dsr_loss(a, b, 0.2, own)).sum(),
        "align_uniformity_dsr": lambda a, b: torch.stack(
            functional.align_uniformity_dsr_loss(a, b, 2.0, own)
        ).sum(),
        "info_nce": lambda a, b: functional.info_nce_loss(a, b, 0.2),
        "group_nt_xent": lambda a, b: functional.group_nt_xent_loss(a, b, 8, 0.2).sum(),
        "spectral": lambda a, b: (
            functional.spectral_moment(a, b) + functional.spectral_attraction(a, b)
        ),
        "align": functional.align_loss,
        "dsr": lambda a, b: functional.dsr_loss(a, own.dims) + functional.dsr_loss(b, own.dims),
    }


def draw(count: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random directions `[count, WIDTH]`, an eighth each of lengths 0, 6e-8 and 1, and of three
    bands about the shortest that is not zero, the shortest of float16, and all from 1e-40 to 1e38.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 8, (count, 1), generator=generator)
    share = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    length = 10 ** (78 * share - 40)
    bands = {0: 0 * share, 1: 0 * share + 6e-8, 2: 0 * share + 1, 3: 10 ** (2 * share - 13)}
    for number, band in (bands | {4: 10 ** (2 * share - 8)}).items():
        length = torch.where(kind == number, band, length)
    if dtype == torch.float16:
        length = length.clamp(max=LARGEST_HALF)
    return (z / z.norm(dim=1, keepdim=True) * length).to(dtype).requires_grad_()


def faults(loss: Loss, count: int, dtype: torch.dtype, seed: int) -> list[str]:
    """What is wrong with the loss of such rows: NaN, infinity where the dtype reaches further, a
    gradient at a row that is zero.
    """
    views = draw(count, dtype, 2 * seed), draw(count, dtype, 2 * seed + 1)
    value = loss(*views)
    found = [] if bool(value.isfinite()) else [f"seed {seed}: the value is {value.item()}"]
    for z, gradient in zip(views, torch.autograd.grad(value, views), strict=True):
        length = z.detach().double().norm(dim=1)
        held = (length >= LONG_ENOUGH) | (dtype != torch.float16)
        wrong = gradient.isnan().any(1) | (held & ~gradient.isfinite().all(1))
        wrong |= (length == 0) & (gradient != 0).any(1)
        found += [
            f"seed {seed}, a row of length {length[i]:.1e}: {gradient[i].tolist()}"
            for i in wrong.nonzero()[:1, 0].tolist()
        ]
    return found
