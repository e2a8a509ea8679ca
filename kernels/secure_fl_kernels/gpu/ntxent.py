"""NT-Xent on a GPU: project, row sums, and one gradient pass whose epilogue ends at the raw rows.

Reference: `reference.nt_xent_loss` and `reference.dsr_loss`; the loops are in `contrast`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log, log2

import torch
from torch import Tensor

from secure_fl_kernels.gpu import contrast
from secure_fl_kernels.gpu.launch import ELEMENT, Tile, architecture, blocks, exact, on, precision, zeros_own
from secure_fl_kernels.gpu.rows import project
from secure_fl_kernels.gpu.tiles import tile_for
from secure_fl_kernels.gpu.variants import Architecture, Loop, Variant, variant

LOG2E = 1 / log(2)
_LARGEST_EXPONENT = 120
"""Exponentials and their sums stay below 2^120, and single ones above 2^-120: float32 holds 2^±126 exactly."""


def scale_of(temperature: float) -> float:
    """Factor of the unit rows that makes their products similarities in units of log₂."""
    return float((LOG2E / temperature) ** 0.5)


def online(columns: int, temperature: float) -> bool:
    """Whether the range demands a running maximum."""
    return LOG2E / temperature + log2(columns) > _LARGEST_EXPONENT


def row_sums(left: Tensor, right: Tensor, rows: int, columns: int, temperature: float, tile: Tile | None = None) -> tuple[Tensor, Tensor]:
    """(sums, or their log₂ where the range demands it; similarity with the positive), `[rows]` each, of padded unit rows."""
    tile = tile or tile_for("sums", architecture(left.device), left.dtype != torch.float32, left.shape[1])
    sums, positive = (left.new_empty(rows, dtype=torch.float32) for _ in range(2))
    with on(left):
        contrast.row_sums_kernel[(blocks(rows, tile.rows),)](
            left, right, sums, positive, rows, columns, WIDTH=left.shape[1], SELF=left is right, ONLINE=online(columns, temperature),
            M=tile.rows, N=tile.columns, DEPTH=min(tile.depth, left.shape[1]), PRECISION=precision(left),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return sums, positive


def mean_loss(sums: Tensor, positive: Tensor, columns: int, temperature: float) -> Tensor:
    """Mean of log-sum-exp less the positive's similarity."""
    logs = sums if online(columns, temperature) else sums.log2()
    return (logs - positive).mean() / LOG2E


def gradient(
    left: Tensor,
    right: Tensor,
    a_left: Tensor,
    a_right: Tensor,
    grad: Tensor,
    inverse: Tensor,
    pairs: int,
    count: int,
    temperature: float,
    dimension: int,
    regulariser: tuple[Tensor, Tensor, Tensor] | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Gradient `[rows, D]` by the raw rows of `left`.

    Args:
        a_left: with `a_right` what `contrast.gradient_kernel` weighs pairs by.
        pairs: rows that have a positive.
        count: rows that the loss is a mean over.
        regulariser: ω, own coordinates and span.
    """
    self = left is right
    half = left.dtype != torch.float32
    tile = tile or tile_for("gradient", architecture(left.device), half, left.shape[1])
    running = online(max(len(a_left), len(a_right)), temperature)
    # Each G is about 1/columns; float16 keeps 11 bits of it only above 2^-14.
    boost = 2.0 ** min(14, int(log2(max(len(a_right), 2)))) if left.dtype == torch.float16 else 1.0
    a_left, a_right = (a - log2(boost) if running else a * boost for a in (a_left, a_right))
    chunk = min(tile.depth, left.shape[1])
    nothing = left.new_empty((0, 0), dtype=torch.float32)
    omega, own, span = (nothing, nothing, nothing) if regulariser is None else regulariser
    energy = own[: len(inverse)].square().sum(1)
    out = left.new_empty(len(inverse), dimension)
    positive = _positives(left, right, pairs, self) if left.shape[1] > chunk else nothing
    with on(left):
        contrast.gradient_kernel[(blocks(len(inverse), tile.rows), blocks(left.shape[1], chunk))](
            left, right, a_left, a_right, grad.float(), positive, inverse, omega, energy, own, span, out, len(inverse), len(a_right), pairs,
            (2.0 if self else 1.0) * boost, 1 / (count * temperature * scale_of(temperature) * boost), 1 / scale_of(temperature),
            D=dimension, WIDTH=left.shape[1], OWNED=span.shape[1], SELF=self, ONLINE=running, M=tile.rows, N=tile.columns,
            DEPTH=chunk, CHUNK=chunk, PRECISION=precision(left), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out


def _positives(left: Tensor, right: Tensor, pairs: int, self: bool) -> Tensor:
    """Similarities with the positives, of rows that have one."""
    half = pairs // 2
    if self:
        return (left[:half].float() * left[half:pairs].float()).sum(1).repeat(2)
    return (left[:pairs].float() * right[:pairs].float()).sum(1)


def forward(x: Tensor, temperature: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(loss, padded unit rows, inverse lengths, row sums, own coordinates, energies) of raw rows `[M, D]`, first views before second."""
    z, inverse, _, own, energy, _ = project(x, columns, scale=scale_of(temperature))
    sums, positive = row_sums(z, z, len(x), len(x), temperature)
    return mean_loss(sums, positive, len(x), temperature), z, inverse, sums, own, energy


def backward(
    grad: Tensor, weights: Tensor | None, z: Tensor, inverse: Tensor, sums: Tensor, own: Tensor, columns: Tensor | None,
    temperature: float, dimension: int,
) -> Tensor:  # fmt: skip
    """Gradient `[M, D]` by the raw rows of grad · loss, plus the regulariser's with weights ω."""
    count = len(inverse)
    a = sums if online(count, temperature) else sums.reciprocal()
    regulariser = None
    if weights is not None:
        regulariser = (weights, own, zeros_own(count, columns, z)[0])
    return gradient(z, z, a, a, grad, inverse, count, count, temperature, dimension, regulariser)


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: every dtype and precision, rows held whole and in chunks, one buffer (NT-Xent) and two (InfoNCE), and online."""
    for dtype, name in ELEMENT.items():
        products = ["tf32"] if dtype != torch.float32 else sorted({exact(family), "tf32" if family != "gfx942" else "ieee"})
        for product in products:
            title = name if dtype != torch.float32 else f"{name}.{product}"
            for width in (64, 128, 512):
                yield from _pair(family, title, name, width, product, SELF=True, ONLINE=False)
            yield from _pair(family, title, name, 128, product, SELF=True, ONLINE=True)
            yield from _pair(family, title, name, 128, product, SELF=False, ONLINE=False)


def _pair(family: Architecture, title: str, element: str, width: int, product: str, **kind: bool) -> Iterator[Variant]:
    """Row sums and gradient of one kind."""
    names = ("SUMS", "POSITIVE", "A_LEFT", "A_RIGHT", "GRAD", "INVERSE", "OMEGA", "ENERGY", "OWN", "SPAN")
    types = dict.fromkeys(names, "*fp32") | dict.fromkeys(("LEFT", "RIGHT", "OUT"), f"*{element}")
    types |= dict.fromkeys(("count", "columns", "pairs"), "i32") | dict.fromkeys(("pull", "factor", "shrink"), "fp32")
    loss = ("ntxent" if kind["SELF"] else "infonce") + ("_online" if kind["ONLINE"] else "")
    for kernel, function, outputs in (("sums", contrast.row_sums_kernel, 0), ("gradient", contrast.gradient_kernel, 1)):
        tile = tile_for(kernel, family, element != "fp32", width)
        constants = {"WIDTH": width, "M": tile.rows, "N": tile.columns, "DEPTH": tile.depth, "PRECISION": product, **kind}
        if outputs:
            constants |= {"D": width, "OWNED": 64 if kind["SELF"] and not kind["ONLINE"] else 0, "CHUNK": tile.depth}
        loop = Loop(tile.rows * tile.columns, 1, width + outputs * tile.depth)
        yield variant(f"{loss}_{kernel}/{title}/{width}", function, types, constants, tile, loop)
