"""NT-Xent in two passes over symmetric tiles: 4N²D flops instead of the 6N²D of a full matrix, O(N·D) memory.

With z unit rows, s = z·zᵀ/τ, p(i) the partner of row i and r_i = Σ_k exp s_ik over all k but i and p(i):
    loss = (1/M) Σ_i softplus(x_i), x_i = log r_i − s_{i,p(i)},
    ∂loss/∂z_i = (1/Mτ) [ Σ_k exp(s_ik)(1/R_i + 1/R_k) z_k − (σ(x_i) + σ(x_p)) z_{p(i)} ],  R_i = r_i + exp s_{i,p(i)}.
Partners stay out of the sums because 1 − (their probability), which σ(x) is, would otherwise lose its digits in a trained model.

Unit rows bound |s| by 1/τ, so no maximum is subtracted while exp(1/τ) times the number of rows stays in range (`fits`).
The products run at `torch.get_float32_matmul_precision()`; "medium" is bfloat16 with float32 sums where the processor
has AMX. The positives, which carry most of a trained loss, are added apart in full precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import add_own, energies, soft_positive, tangent, unit
from secure_fl_kernels.cpu.tiles import Tile, edge_of, shared, two_views


def fits(rows: int, temperature: float, dtype: torch.dtype) -> bool:
    """Whether row sums of exp(±1/τ) stay inside the range of `dtype` without a shift."""
    return 1 / temperature + log(max(rows, 1)) < 0.95 * log(torch.finfo(dtype).max)


def forward(x: Tensor, temperature: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(loss, unit rows · √(1/τ), inverse lengths, `[2, M]`: x_i and s_{i,p(i)}, own coordinates, energies) of two views' raw rows `[M, D]`."""
    scaled, inverse = unit(x)
    scaled.mul_(temperature**-0.5)

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = scaled.new_zeros(len(scaled)), _square(scaled)
        for tile in tiles:
            kernel = _kernel(scaled, tile, buffer)
            sums[tile.top : tile.bottom] += kernel.sum(1)
            if not tile.symmetric:
                sums[tile.left : tile.right] += kernel.sum(0)
        return sums

    half = len(scaled) // 2
    positive = (scaled[:half] * scaled[half:]).sum(1).repeat(2)
    ahead = shared(work, two_views(half)).log() - positive
    return soft_positive(ahead).mean(), scaled, inverse, torch.stack([ahead, positive]), *energies(scaled, columns, temperature**-0.5)


def backward(
    grad: Tensor,
    weights: Tensor | None,
    scaled: Tensor,
    inverse: Tensor,
    statistics: Tensor,
    own: Tensor,
    columns: Tensor | None,
    temperature: float,
    dimension: int,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient `[M, D]` by the raw rows of grad · loss, plus the regulariser's with weights ω."""
    (ahead, positive), half = statistics, len(scaled) // 2
    reciprocal = torch.exp(-positive - soft_positive(ahead))

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient, buffer, factors = torch.zeros_like(scaled), _square(scaled), _square(scaled)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            factor = torch.add(reciprocal[rows, None], reciprocal[None, columns], out=tile.of(factors))
            kernel = _kernel(scaled, tile, buffer).mul_(factor)
            gradient[rows].addmm_(kernel, scaled[columns])
            if not tile.symmetric:
                gradient[columns].addmm_(kernel.T, scaled[rows])
        return gradient

    gradient = shared(work, two_views(half))
    pull = torch.sigmoid(ahead)
    pull = (pull[:half] + pull[half:])[:, None]
    gradient[:half].addcmul_(pull, scaled[half:], value=-1)
    gradient[half:].addcmul_(pull, scaled[:half], value=-1)
    gradient.mul_(grad * (temperature**-0.5 / len(scaled)))
    return tangent(add_own(gradient, weights, own, columns), scaled, inverse, 1 / temperature)


def _square(z: Tensor) -> Tensor:
    """Room for one tile, reused: a fresh one each time would cost its page faults."""
    edge = edge_of(len(z))
    return z.new_empty(edge, edge)


def _kernel(scaled: Tensor, tile: Tile, buffer: Tensor) -> Tensor:
    """exp of one tile of similarities, zero for rows with themselves and their partners; overwrites `buffer`."""
    kernel = torch.mm(scaled[tile.top : tile.bottom], scaled[tile.left : tile.right].T, out=tile.of(buffer)).exp_()
    return kernel.fill_diagonal_(0.0) if tile.zero else kernel
