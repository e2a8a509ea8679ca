"""Uniformity on unit rows in one pass: the loss and its gradient together, 3N²D flops, O(N·D) memory.

With w_ij = exp(−t‖z_i − z_j‖²) and S = Σ_{i≠j} w_ij:
    loss = log(S / M(M−1)),   ∂loss/∂z_i = (4t/S) Σ_j w_ij (z_j − z_i).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.tiles import Tile, edge_of, summed


def fits(t: float, dtype: torch.dtype) -> bool:
    """Whether exp(−4t), the kernel of opposite unit rows, stays a normal number."""
    return 4 * t < 0.95 * -log(torch.finfo(dtype).tiny)


def forward(z: Tensor, t: float, threads: int) -> tuple[Tensor, Tensor]:
    """(loss, its gradient `[M, D]`) for unit rows `[M, D]`; the last column of the private sums carries Σ_j w_ij."""
    width, edge = z.shape[1], edge_of(len(z))
    square = t * z.square().sum(1)

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = z.new_zeros(len(z), width + 1), z.new_empty(edge, edge)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            kernel = torch.addmm(square[None, columns], z[rows], z[columns].T, beta=-1, alpha=2 * t, out=tile.of(buffer))
            kernel.sub_(square[rows, None]).exp_()
            if tile.diagonal:
                kernel.fill_diagonal_(0.0)
            sums[rows, :width].addmm_(kernel, z[columns])
            sums[rows, width] += kernel.sum(1)
            if not tile.diagonal:
                sums[columns, :width].addmm_(kernel.T, z[rows])
                sums[columns, width] += kernel.sum(0)
        return sums

    sums = summed(work, len(z), threads)
    mass = sums[:, width]
    total = mass.sum()
    gradient = (sums[:, :width] - mass[:, None] * z).mul_(4 * t / total)
    return (total / (len(z) * (len(z) - 1))).log(), gradient
