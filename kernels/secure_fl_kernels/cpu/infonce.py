"""InfoNCE of queries against keys in tiles: O(N·D) memory, 8NKD flops with the recomputation that
saves the matrix.

With q, k unit rows, s = q·kᵀ/τ, r_i = Σ_{j≠i} exp s_ij, x_i = log r_i − s_ii, R_i = r_i + exp s_ii
and G_ij = exp(s_ij)/R_i off the diagonal, zero on it:
    loss = (1/N) Σ_i softplus(x_i),
    ∂loss/∂q_i = (1/Nτ) (Σ_j G_ij k_j − σ(x_i) k_i),
    ∂loss/∂k_j = (1/Nτ) (Σ_i G_ij q_i − σ(x_j) q_j), without q_j where j ≥ N.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import soft_positive, tangent, unit
from secure_fl_kernels.cpu.threads import shared, tiled
from secure_fl_kernels.cpu.tiles import Cut, Tile, cut_of, rectangle


@tiled
def forward(q: Tensor, k: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """(loss, unit queries · √(u/τ), their inverse lengths, keys likewise, theirs, `[2, N]`: x_i and
    s_ii) of raw rows `[N, D]` and `[K, D]`; u is the unit of similarities (`Cut`).
    """
    (scaled_q, inverse_q), (scaled_k, inverse_k) = unit(q), unit(k)
    cut = cut_of(len(k))
    for scaled in (scaled_q, scaled_k):
        scaled.mul_((cut.unit / temperature) ** 0.5)

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = scaled_q.new_zeros(len(scaled_q)), _square(scaled_k, cut)
        for tile in tiles:
            sums[tile.top : tile.bottom] += _kernel(scaled_q, scaled_k, tile, buffer, cut).sum(1)
        return sums

    positive = (scaled_q * scaled_k[: len(scaled_q)]).sum(1).div_(cut.unit)
    ahead = shared(work, rectangle(len(scaled_q), len(scaled_k), cut.edge)).log() - positive
    return (
        soft_positive(ahead).mean(),
        scaled_q,
        inverse_q,
        scaled_k,
        inverse_k,
        torch.stack([ahead, positive]),
    )


@tiled
def backward(
    grad: Tensor,
    scaled_q: Tensor,
    inverse_q: Tensor,
    scaled_k: Tensor,
    inverse_k: Tensor,
    statistics: Tensor,
    temperature: float,
    dimension: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Gradients by the raw queries `[N, D]` and keys `[K, D]` of grad · loss."""
    count, keys = len(scaled_q), len(scaled_k)
    ahead, positive = statistics
    reciprocal = torch.exp(-positive - soft_positive(ahead))
    cut = cut_of(keys)

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient = scaled_q.new_zeros(count + keys, scaled_q.shape[1])
        buffer = _square(scaled_k, cut)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            kernel = _kernel(scaled_q, scaled_k, tile, buffer, cut).mul_(reciprocal[rows, None])
            gradient[rows].addmm_(kernel, scaled_k[columns])
            gradient[count + tile.left : count + tile.right].addmm_(kernel.T, scaled_q[rows])
        return gradient

    gradient = shared(work, rectangle(count, keys, cut.edge))
    by_q, by_k = gradient[:count], gradient[count:]
    pull = torch.sigmoid(ahead)[:, None]
    by_q.addcmul_(pull, scaled_k[:count], value=-1)
    by_k[:count].addcmul_(pull, scaled_q, value=-1)
    square = cut.unit / temperature
    gradient.mul_(grad * (square**-0.5 / (temperature * count)))
    return tangent(by_q, scaled_q, inverse_q, square).clone(), tangent(
        by_k, scaled_k, inverse_k, square
    ).clone()


def _square(z: Tensor, cut: Cut) -> Tensor:
    return z.new_empty(cut.edge, cut.edge)


def _kernel(q: Tensor, k: Tensor, tile: Tile, buffer: Tensor, cut: Cut) -> Tensor:
    kernel = cut.exponential(
        torch.mm(q[tile.top : tile.bottom], k[tile.left : tile.right].T, out=tile.of(buffer))
    )
    return kernel.fill_diagonal_(0.0) if tile.zero else kernel
