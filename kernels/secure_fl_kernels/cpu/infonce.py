"""InfoNCE of queries against keys in row blocks: O(N·D) memory, 8NKD flops with the recomputation that saves the matrix.

With q, k unit rows, s = q·kᵀ/τ and r_i = Σ_j exp s_ij over all keys:
    loss = (1/N) Σ_i (log r_i − s_ii),   G_ij = exp(s_ij) / r_i,
    ∂loss/∂q_i = (1/Nτ) (Σ_j G_ij k_j − k_i),   ∂loss/∂k_j = (1/Nτ) (Σ_i G_ij q_i − q_j), without q_j where j ≥ N.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import tangent, unit
from secure_fl_kernels.cpu.tiles import Tile, edge_of, rectangle, shared


def forward(q: Tensor, k: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """(loss, unit queries, their inverse lengths, unit keys, theirs, row sums `[N]`) of raw rows `[N, D]` and `[K, D]`."""
    (zq, inverse_q), (zk, inverse_k) = unit(q), unit(k)
    scaled_q, scaled_k = zq * temperature**-0.5, zk * temperature**-0.5

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = zq.new_zeros(len(zq)), _square(zq, zk)
        for tile in tiles:
            sums[tile.top : tile.bottom] += _kernel(scaled_q, scaled_k, tile, buffer).sum(1)
        return sums

    sums = shared(work, rectangle(len(zq), len(zk)))
    loss = sums.log().mean() - (scaled_q * scaled_k[: len(zq)]).sum(1).mean()
    return loss, zq, inverse_q, zk, inverse_k, sums


def backward(
    grad: Tensor, zq: Tensor, inverse_q: Tensor, zk: Tensor, inverse_k: Tensor, sums: Tensor, temperature: float, dimension: int
) -> tuple[Tensor, Tensor]:
    """Gradients by the raw queries `[N, D]` and keys `[K, D]` of grad · loss."""
    count, scaled_q, scaled_k = len(zq), zq * temperature**-0.5, zk * temperature**-0.5

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient, buffer = zq.new_zeros(count + len(zk), zq.shape[1]), _square(zq, zk)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            kernel = _kernel(scaled_q, scaled_k, tile, buffer).div_(sums[rows, None])
            gradient[rows].addmm_(kernel, scaled_k[columns])
            gradient[count + tile.left : count + tile.right].addmm_(kernel.T, scaled_q[rows])
        return gradient

    gradient = shared(work, rectangle(count, len(zk)))
    by_q, by_k = gradient[:count], gradient[count:]
    by_q -= scaled_k[:count]
    by_k[:count] -= scaled_q
    gradient.mul_(grad * (temperature**-0.5 / count))
    return tangent(by_q, zq, inverse_q).clone(), tangent(by_k, zk, inverse_k).clone()


def _square(zq: Tensor, zk: Tensor) -> Tensor:
    edge = edge_of(max(len(zq), len(zk)))
    return zq.new_empty(edge, edge)


def _kernel(q: Tensor, k: Tensor, tile: Tile, buffer: Tensor) -> Tensor:
    return torch.mm(q[tile.top : tile.bottom], k[tile.left : tile.right].T, out=tile.of(buffer)).exp_()
