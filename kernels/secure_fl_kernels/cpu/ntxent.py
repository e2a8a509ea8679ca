"""NT-Xent in two passes over symmetric tiles: 4N²D flops instead of the 6N²D of a full matrix, O(N·D) memory.

With z unit rows, s = z·zᵀ/τ, r_i = Σ_{k≠i} exp s_ik and p(i) the partner of row i:
    loss = (1/M) Σ_i (log r_i − s_{i,p(i)}),
    ∂loss/∂z_i = (1/Mτ) [ Σ_{k≠i} exp(s_ik)(1/r_i + 1/r_k) z_k − 2 z_{p(i)} ].

Unit rows bound |s| by 1/τ, so no maximum is subtracted while exp(1/τ) times the number of rows stays in range (`fits`).
The products run at `torch.get_float32_matmul_precision()`; "medium" is bfloat16 with float32 sums where the processor
has AMX. The positives, which carry most of a trained loss, are added apart in full precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import add_own, energies, tangent, unit
from secure_fl_kernels.cpu.tiles import Tile, edge_of, summed


def fits(rows: int, temperature: float, dtype: torch.dtype) -> bool:
    """Whether row sums of exp(±1/τ) stay inside the range of `dtype` without a shift."""
    return 1 / temperature + log(max(rows, 1)) < 0.95 * log(torch.finfo(dtype).max)


def forward(x: Tensor, temperature: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(loss, unit rows, inverse lengths, row sums, own coordinates, energies) of raw rows `[M, D]`, first views before second."""
    z, inverse = unit(x)
    scaled = z * temperature**-0.5

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = z.new_zeros(len(z)), _square(z)
        for tile in tiles:
            kernel = _kernel(scaled, tile, buffer)
            sums[tile.top : tile.bottom] += kernel.sum(1)
            if not tile.diagonal:
                sums[tile.left : tile.right] += kernel.sum(0)
        return sums

    sums, half = summed(work, len(z)), len(z) // 2
    loss = sums.log().mean() - (scaled[:half] * scaled[half:]).sum(1).mean()
    return loss, z, inverse, sums, *energies(z, columns)


def backward(
    grad: Tensor,
    weights: Tensor | None,
    z: Tensor,
    inverse: Tensor,
    sums: Tensor,
    own: Tensor,
    columns: Tensor | None,
    temperature: float,
    dimension: int,
) -> Tensor:
    """Gradient `[M, D]` by the raw rows of grad · loss, plus the regulariser's with weights ω."""
    scaled, reciprocal = z * temperature**-0.5, sums.reciprocal()

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient, buffer, factors = torch.zeros_like(scaled), _square(z), _square(z)
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            factor = torch.add(reciprocal[rows, None], reciprocal[None, columns], out=tile.of(factors))
            kernel = _kernel(scaled, tile, buffer).mul_(factor)
            gradient[rows].addmm_(kernel, scaled[columns])
            if not tile.diagonal:
                gradient[columns].addmm_(kernel.T, scaled[rows])
        return gradient

    gradient, half = summed(work, len(z)), len(z) // 2
    gradient[:half] -= 2 * scaled[half:]
    gradient[half:] -= 2 * scaled[:half]
    gradient.mul_(grad * (temperature**-0.5 / len(z)))
    return tangent(add_own(gradient, weights, own, columns), z, inverse)


def _square(z: Tensor) -> Tensor:
    """Room for one tile, reused: a fresh one each time would cost its page faults."""
    edge = edge_of(len(z))
    return z.new_empty(edge, edge)


def _kernel(scaled: Tensor, tile: Tile, buffer: Tensor) -> Tensor:
    """exp of one tile of similarities, zero on the matrix's diagonal; overwrites `buffer`."""
    kernel = torch.mm(scaled[tile.top : tile.bottom], scaled[tile.left : tile.right].T, out=tile.of(buffer)).exp_()
    return kernel.fill_diagonal_(0.0) if tile.diagonal else kernel
