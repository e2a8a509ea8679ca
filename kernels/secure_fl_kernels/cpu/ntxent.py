"""NT-Xent on unit rows in two passes over symmetric tiles: 4N²D flops instead of the 6N²D of a full matrix, O(N·D) memory.

With s = z·zᵀ/τ, r_i = Σ_{k≠i} exp s_ik and p(i) the partner of row i:
    loss = (1/M) Σ_i (log r_i − s_{i,p(i)}),
    ∂loss/∂z_i = (1/Mτ) [ Σ_{k≠i} exp(s_ik)(1/r_i + 1/r_k) z_k − 2 z_{p(i)} ].

Unit rows bound |s| by 1/τ, so no maximum is subtracted while exp(1/τ) times the number of rows stays in range (`fits`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.tiles import Tile, edge_of, summed


def fits(rows: int, temperature: float, dtype: torch.dtype) -> bool:
    """Whether row sums of exp(±1/τ) stay inside the range of `dtype` without a shift."""
    return 1 / temperature + log(max(rows, 1)) < 0.95 * log(torch.finfo(dtype).max)


def forward(z: Tensor, temperature: float, threads: int) -> tuple[Tensor, Tensor]:
    """(loss, row sums `[M]`) for unit rows `[M, D]`, the first half's partners in the second."""
    scaled = z * temperature**-0.5

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = z.new_zeros(len(z)), _square(z)
        for tile in tiles:
            kernel = _kernel(scaled, tile, buffer)
            sums[tile.top : tile.bottom] += kernel.sum(1)
            if not tile.diagonal:
                sums[tile.left : tile.right] += kernel.sum(0)
        return sums

    sums = summed(work, len(z), threads)
    half = len(z) // 2
    return sums.log().mean() - (scaled[:half] * scaled[half:]).sum(1).mean(), sums


def backward(z: Tensor, sums: Tensor, temperature: float, threads: int) -> Tensor:
    """Gradient `[M, D]` of the loss by its unit rows."""
    scaled, inverse = z * temperature**-0.5, sums.reciprocal()

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient, buffer, weights = torch.zeros_like(scaled), _square(z), _square(z)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            weight = torch.add(inverse[rows, None], inverse[None, columns], out=tile.of(weights))
            kernel = _kernel(scaled, tile, buffer).mul_(weight)
            gradient[rows].addmm_(kernel, scaled[columns])
            if not tile.diagonal:
                gradient[columns].addmm_(kernel.T, scaled[rows])
        return gradient

    gradient, half = summed(work, len(z), threads), len(z) // 2
    gradient[:half] -= 2 * scaled[half:]
    gradient[half:] -= 2 * scaled[:half]
    return gradient.mul_(temperature**-0.5 / len(z))


def _square(z: Tensor) -> Tensor:
    """Room for one tile, reused: a fresh one each time would cost its page faults."""
    edge = edge_of(len(z))
    return z.new_empty(edge, edge)


def _kernel(scaled: Tensor, tile: Tile, buffer: Tensor) -> Tensor:
    """exp of one tile of similarities, zero on the matrix's diagonal; overwrites `buffer`."""
    kernel = torch.mm(scaled[tile.top : tile.bottom], scaled[tile.left : tile.right].T, out=tile.of(buffer)).exp_()
    return kernel.fill_diagonal_(0.0) if tile.diagonal else kernel
