"""Uniformity on a GPU: loss and pull of every row in one pass over all pairs of a view.

With rows scaled by √(2t·log₂e), w_ij = b_i b_j exp₂(s_ij), b_i = exp₂(−‖z_i‖²/2): one product and
one exponential a pair. The loop takes β b_j exp₂(s_ij) with β = exp(min(t, 10 − t)), about 1 for
unrelated rows and at most e^10: float16 holds it.
mass_i = Σ_{j≠i} w_ij,   pull_i = Σ_{j≠i} w_ij z_j;   loss = log(Σ mass / N(N−1)).
See `cpu.uniform` for the gradient.
Reference: `reference.uniformity_loss` and `reference.align_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels.gpu.blocks import load_tile, similarities, skip_zone
from secure_fl_kernels.gpu.launch import Tile, blocks, on, precision, span_of
from secure_fl_kernels.gpu.ntxent import LOG2E, products
from secure_fl_kernels.gpu.rows import project, tangent
from secure_fl_kernels.gpu.tiles import tile_for, tile_of
from secure_fl_kernels.gpu.variants import Architecture, Loop, Variant, variant


@triton.jit
def _gather(
    acc, mass, z_m, Z, DECAY, rows, first, start, chunk, count, WIDTH: tl.constexpr,
    EDGE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile into the accumulators, without the row's own b."""
    s, z_n = similarities(z_m, Z, Z, first, start, WIDTH, M, N, DEPTH, PRECISION)
    n = start + tl.arange(0, N)
    if EDGE:
        w = tl.exp2(s) * tl.load(DECAY + n, mask=n < count, other=0.0)[None, :]
        w = tl.where((n[None, :] < count) & (n[None, :] != rows[:, None]), w, 0.0)
    else:
        w = tl.exp2(s) * tl.load(DECAY + n)[None, :]
    mass += tl.sum(w, 1)
    if WIDTH != CHUNK:
        z_n = load_tile(Z, start, chunk, WIDTH, N, CHUNK)
    return tl.dot(w.to(z_n.dtype), z_n, acc, input_precision=PRECISION), mass


@triton.jit
def pull_kernel(
    Z, DECAY, MASS, PULL, count, padded, unboost, WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Mass and pull of one view's rows. Axes: blocks of M rows, chunks of dimensions, views."""
    tl.static_assert(M % N == 0)
    first = tl.program_id(0) * M
    chunk = tl.program_id(1) * CHUNK
    view = tl.cast(tl.program_id(2), tl.int64)
    Z += view * padded * WIDTH
    DECAY += view * count
    rows = first + tl.arange(0, M)
    z_m = load_tile(Z, first, 0, WIDTH, M, DEPTH)
    acc = tl.zeros([M, CHUNK], tl.float32)
    mass = tl.zeros([M], tl.float32)
    full = count // N * N
    inside = first + M <= full
    for k in range(0, tl.where(inside, full - M, first), N):
        acc, mass = _gather(
            acc, mass, z_m, Z, DECAY, rows, first, skip_zone(k, first, M), chunk, count, WIDTH,
            False, M, N, DEPTH, CHUNK, PRECISION,
        )  # fmt: skip
    for k in range(0, M + N, N):
        start = tl.where(k < M, first + k, tl.where(inside, full, count))
        if start < count:
            acc, mass = _gather(
                acc, mass, z_m, Z, DECAY, rows, first, start, chunk, count, WIDTH, True, M, N,
                DEPTH, CHUNK, PRECISION,
            )  # fmt: skip
    decay = tl.load(DECAY + rows, mask=rows < count, other=0.0) * unboost
    tl.store(MASS + view * count + rows, mass * decay, mask=rows < tl.where(chunk == 0, count, 0))
    d = chunk + tl.arange(0, CHUNK)
    tl.store(
        PULL + view * padded * WIDTH + tl.cast(rows, tl.int64)[:, None] * WIDTH + d[None, :],
        acc * decay[:, None],
    )


def pulls(
    z: Tensor, decay: Tensor, views: int, boost: float = 1.0, tile: Tile | None = None
) -> tuple[Tensor, Tensor]:
    """(mass `[views · N]`, pull in float32, padded as the rows) of scaled unit rows; `boost`
    is β.
    """
    tile = tile or tile_of("uniformity", z, len(decay) // views)
    count, padded = len(decay) // views, len(z) // views
    mass, pull = torch.empty_like(decay), torch.empty_like(z, dtype=torch.float32)
    chunk = min(tile.depth, z.shape[1])
    with on(z):
        pull_kernel[(blocks(count, tile.rows), blocks(z.shape[1], chunk), views)](
            z, decay * boost, mass, pull, count, padded, boost**-2, WIDTH=z.shape[1], M=tile.rows,
            N=tile.columns, DEPTH=chunk, CHUNK=chunk, PRECISION=precision(z), num_warps=tile.warps,
            num_stages=tile.stages,
        )  # fmt: skip
    return mass, pull


def forward(x: Tensor, views: int, t: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(uniformity, alignment, inverse lengths, pull, its rates `[views]`, own coordinates,
    energies) of raw rows `[views · N, D]`.
    """
    z, inverse, square, own, energy, _ = project(x, columns, views, (2 * t * LOG2E) ** 0.5)
    mass, pull = pulls(z, torch.exp2(square / -2), views, exp(min(t, 10 - t)))
    total, count = mass.reshape(views, -1).sum(1), len(x) // views
    uniformity = (total / (count * (count - 1))).log().mean()
    align = uniformity.new_zeros(())
    if views == 2:
        first, second = z[:count].float(), z[len(z) // 2 :][:count].float()
        align = (first - second).square().sum() / (count * 2 * t * LOG2E)
    return uniformity, align, inverse, pull, 4 * t / (views * total), own, energy


def backward(
    grad: Tensor, grad_align: Tensor | None, weights: Tensor | None, x: Tensor, inverse: Tensor,
    pull: Tensor, rates: Tensor, own: Tensor, columns: Tensor | None, t: float,
) -> Tensor:  # fmt: skip
    """Gradient `[views · N, D]` by the raw rows of grad · uniformity + grad_align · alignment, plus
    the regulariser's with ω.
    """
    count = len(inverse) // len(rates)
    align = None if grad_align is None else grad_align * (2 / count)
    span = span_of(columns if weights is not None else None, pull.shape[1], own.dtype, own.device)
    return tangent(
        pull, grad * rates * (2 * t * LOG2E) ** -0.5, align, weights, x, inverse, own, span
    )


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: half and single rows, held whole and in chunks."""
    types = dict.fromkeys(("DECAY", "MASS", "PULL"), "*fp32") | {
        "count": "i32",
        "padded": "i32",
        "unboost": "fp32",
    }
    for title, element, product in products(family):
        for width in (64, 128, 512):
            tile = tile_for("uniformity", family, product, width, element == "fp16")
            constants = {
                "WIDTH": width,
                "M": tile.rows,
                "N": tile.columns,
                "DEPTH": tile.depth,
                "CHUNK": tile.depth,
                "PRECISION": product,
            }
            loop = Loop(tile.rows * tile.columns, 1, width + tile.depth)
            yield variant(
                f"uniformity/{title}/{width}",
                pull_kernel,
                {**types, "Z": f"*{element}"},
                constants,
                tile,
                loop,
            )
