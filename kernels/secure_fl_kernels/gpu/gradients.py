"""Triton: per-sample squared norms, ghost norms of linear layers and convolutions, clipped sums.

Every program owns what it stores: nothing is added atomically, and the few numbers that programs
leave are summed by torch in float64, in a fixed order. Results therefore repeat bit for bit on
one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels.gpu.launch import ELEMENT, architecture, blocks, exact, on
from secure_fl_kernels.gpu.variants import Architecture, Variant
from secure_fl_kernels.reference import gradients as plain
from secure_fl_kernels.reference.gradients import (
    CEILING,
    FLOOR,
    SLACK,
    Convolution,
    ghost_margin,
    gram_is_cheaper,
    sequences,
)

_FLOOR = tl.constexpr(FLOOR[torch.float32])
_LONGER = tl.constexpr(1 + SLACK[torch.float32])
_CEILING = tl.constexpr(CEILING[torch.float32])
_PER_CEILING = tl.constexpr(1 / CEILING[torch.float32])
_LARGEST = 3.0e38
"""A bound on lengths in float32: 10³⁰⁰ and 3·10³⁸ clip the same rows, which is none."""
_CUT = 2.0**-27
"""Per position, what a squared norm is raised by for sums in matrix units, which cut to 24 bits
every 16 positions, not round.
"""
_FARTHEST = 1 << 31
"""Ghost norms place elements inside a sample by 32-bit numbers: with 64 bits addresses take twice
the registers, and they spill.
"""


@triton.jit
def square_kernel(G, OUT, width, stride, parts, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Σ g² over `BLOCK * STEPS` elements of one row of G `[B, P]`; OUT `[B, parts]`.
    Reference: `square_norms`.
    """
    sample, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    first = part.to(tl.int64) * (BLOCK * STEPS) + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(STEPS):
        column = first + step * BLOCK
        g = tl.load(G + sample.to(tl.int64) * stride + column, mask=column < width, other=0.0).to(
            tl.float32
        )
        total += g * g
    tl.store(OUT + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def clip_kernel(
    G, SQUARE, NOISE, OUT, samples, width, stride, max_norm, HAS_NOISE: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr
):  # fmt: skip
    """Σ_b f_b g_b + noise over one block of columns, f as in `clip_factors`; rows that do not count
    are not read. Reference: `clip_and_sum`.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = column < width
    total = tl.zeros([BLOCK_B, BLOCK_P], tl.float32)
    for start in range(0, samples, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        square = tl.load(SQUARE + row, mask=row < samples, other=-1.0)
        counts = (square >= 0.0) & (square < _CEILING)
        square = tl.where(counts, square, 1.0)
        length = tl.sqrt(square + _FLOOR) * _LONGER
        factor = tl.where(
            counts, tl.minimum((1.0 / length) * max_norm, 1.0) * (1.0 - square * _PER_CEILING), 0.0
        )
        mask = (factor > 0.0)[:, None] & inside[None, :]
        g = tl.load(
            G + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0.0
        ).to(tl.float32)
        total += g * factor[:, None]
    result = tl.sum(total, 0)
    if HAS_NOISE:
        result += tl.load(NOISE + column, mask=inside, other=0.0)
    tl.store(OUT + column, result, mask=inside)


@triton.jit
def _product(
    X, first, second, length, width, stride_t, stride_d, BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """The Gram tile of positions `first` and `second` of X `[T, D]`."""
    gram = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    rows, columns = first[:, None] * stride_t, second[None, :] * stride_t
    for start in range(0, width, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        inside, step = place < width, place * stride_d
        x = tl.load(
            X + (rows + step[None, :]), mask=(first < length)[:, None] & inside[None, :], other=0.0
        )
        y = tl.load(
            X + (columns + step[:, None]),
            mask=inside[:, None] & (second < length)[None, :],
            other=0.0,
        )
        gram = tl.dot(x, y, gram, input_precision=PRECISION)
    return gram


@triton.jit
def gram_kernel(
    A, B, SQUARE, LENGTH, positions, inputs, outputs, tiles, stride_ab, stride_at, stride_ai,
    stride_bb, stride_bt, stride_bo, bias, lost_a, lost_b, BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of rows of Σ_{t,u} (a_t·a_u + bias)(b_t·b_u) up to the diagonal, off-diagonal tiles
    twice, of A `[B, T, I]`, B `[B, T, O]`.

    LENGTH gets the block's Σ_t √((‖a_t‖² + bias + lost_a)(‖b_t‖² + lost_b)), for the margin.
    Reference: `ghost_square_norms_linear`.
    """
    sample, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    row = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    total = tl.zeros([BLOCK_T], tl.float32)
    square_a, square_b = tl.zeros([BLOCK_T], tl.float32), tl.zeros([BLOCK_T], tl.float32)
    for start in range(0, (tile + 1) * BLOCK_T, BLOCK_T):
        other = start + tl.arange(0, BLOCK_T)
        a = (
            _product(
                A + sample * stride_ab,
                row,
                other,
                positions,
                inputs,
                stride_at,
                stride_ai,
                BLOCK_T,
                BLOCK_D,
                PRECISION,
            )
            + bias
        )
        b = _product(
            B + sample * stride_bb,
            row,
            other,
            positions,
            outputs,
            stride_bt,
            stride_bo,
            BLOCK_T,
            BLOCK_D,
            PRECISION,
        )
        total += tl.sum(a * b, 1) * tl.where(start == tile * BLOCK_T, 1.0, 2.0)
        same = row[:, None] == other[None, :]
        square_a += tl.sum(tl.where(same, a, 0.0), 1)
        square_b += tl.sum(tl.where(same, b, 0.0), 1)
    tl.store(SQUARE + tl.program_id(0), tl.sum(total, 0))
    length = tl.where(row < positions, tl.sqrt((square_a + lost_a) * (square_b + lost_b)), 0.0)
    tl.store(LENGTH + tl.program_id(0), tl.sum(length, 0))


@triton.jit
def outer_kernel(
    A, B, SQUARE, positions, inputs, outputs, tiles, across, stride_ab, stride_at, stride_ai,
    stride_bb, stride_bt, stride_bo, BIAS: tl.constexpr, BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """‖·‖² of one block of Σ_t b_t a_tᵀ, which is never stored; the first block of each row adds
    ‖Σ_t b_t‖². Reference: as `gram_kernel`.
    """
    sample, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    output = (tile // across) * BLOCK_O + tl.arange(0, BLOCK_O)
    feature = (tile % across) * BLOCK_I + tl.arange(0, BLOCK_I)
    gradient = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    A += sample * stride_ab
    B += sample * stride_bb
    rows, columns = output[:, None] * stride_bo, feature[None, :] * stride_ai
    for start in range(0, positions, BLOCK_T):
        place = start + tl.arange(0, BLOCK_T)
        inside = place < positions
        b = tl.load(
            B + (rows + place[None, :] * stride_bt),
            mask=(output < outputs)[:, None] & inside[None, :],
            other=0.0,
        )
        a = tl.load(
            A + (columns + place[:, None] * stride_at),
            mask=inside[:, None] & (feature < inputs)[None, :],
            other=0.0,
        )
        gradient = tl.dot(b, a, gradient, input_precision=PRECISION)
    square = tl.sum(gradient * gradient, 1)
    if BIAS:  # noqa: SIM102  # a constant of the kernel and a value in it cannot be joined by `and`
        if tile % across == 0:
            total = tl.zeros([BLOCK_O, BLOCK_T], tl.float32)
            for start in range(0, positions, BLOCK_T):
                place = start + tl.arange(0, BLOCK_T)
                mask = (output < outputs)[:, None] & (place < positions)[None, :]
                total += tl.load(B + (rows + place[None, :] * stride_bt), mask=mask, other=0.0).to(
                    tl.float32
                )
            row = tl.sum(total, 1)
            square += row * row
    tl.store(SQUARE + tl.program_id(0), tl.sum(square, 0))


class Rows(NamedTuple):
    """Blocks of `square_kernel`: elements at once, turns of the loop, warps."""

    block: int
    steps: int
    warps: int


class Columns(NamedTuple):
    """Blocks of `clip_kernel`: samples and columns at once, warps."""

    samples: int
    columns: int
    warps: int


class Gram(NamedTuple):
    """Blocks of `gram_kernel`: positions, dimensions at once, warps, pipeline stages."""

    positions: int
    depth: int
    warps: int
    stages: int


class Outer(NamedTuple):
    """Blocks of `outer_kernel`: outputs, inputs, positions at once, warps, pipeline stages."""

    outputs: int
    inputs: int
    positions: int
    warps: int
    stages: int


def rows_for(width: int) -> Rows:
    """Short rows take one small block; long ones 8,192 elements a program, 8 to 16 in a
    thread's registers.
    """
    return (
        Rows(256, 1, 2) if width <= 256 else Rows(1024, 1, 4) if width <= 1024 else Rows(2048, 4, 4)
    )


def columns_for(width: int) -> Columns:
    """Few columns are spread over more programs, each holding more samples."""
    return Columns(8, 256, 4) if width > 1 << 16 else Columns(16, 64, 4)


def gram_for(positions: int, half: bool) -> Gram:
    """Sequences of up to 16, 32 or more positions. Three tf32 products for one of float32 need
    twice the registers.
    """
    if positions <= 16:
        return Gram(16, 64, 2, 3) if half else Gram(16, 16, 2, 2)
    if positions <= 32:
        return Gram(32, 64, 8, 3) if half else Gram(32, 32, 4, 2)
    return Gram(64, 32, 4, 3) if half else Gram(64, 16, 8, 3)


def outer_for(inputs: int, outputs: int, half: bool) -> Outer:
    """Narrow layers, such as a first convolution, and all others."""
    if min(inputs, outputs) <= 32:
        return Outer(32, 32, 32, 4, 3) if half else Outer(32, 32, 16, 4, 3)
    return Outer(64, 64, 64, 4, 3) if half else Outer(64, 64, 16, 8, 3)


def square_norms(gradients_BP: Tensor, rows: Rows | None = None) -> Tensor:
    """Σ_p g_bp², `[B]` in float32, of `[B, P]` whose rows may lie apart."""
    if gradients_BP.stride(1) != 1:
        gradients_BP = gradients_BP.contiguous()
    samples, width = gradients_BP.shape
    rows = rows or rows_for(width)
    parts = max(1, blocks(width, rows.block * rows.steps))
    out = gradients_BP.new_empty((samples, parts), dtype=torch.float32)
    if samples:
        with on(gradients_BP):
            square_kernel[(samples * parts,)](
                gradients_BP,
                out,
                width,
                gradients_BP.stride(0),
                parts,
                BLOCK=rows.block,
                STEPS=rows.steps,
                num_warps=rows.warps,
            )
    return _added(out)


def clip_and_sum(
    gradients_BP: Tensor,
    square_norms_B: Tensor,
    max_norm: float,
    noise_P: Tensor | None,
    columns: Columns | None = None,
) -> Tensor:
    """Σ_b min(1, C/‖g_b‖) g_b + noise, `[P]` in float32, of `[B, P]` whose rows may lie apart."""
    if gradients_BP.stride(1) != 1:
        gradients_BP = gradients_BP.contiguous()
    samples, width = gradients_BP.shape
    columns = columns or columns_for(width)
    out = gradients_BP.new_empty(width, dtype=torch.float32)
    noise = out if noise_P is None else noise_P.to(torch.float32).contiguous()
    if width:
        with on(gradients_BP):
            clip_kernel[(blocks(width, columns.columns),)](
                gradients_BP, square_norms_B.to(torch.float32).contiguous(), noise, out, samples,
                width, gradients_BP.stride(0), min(max_norm, _LARGEST),
                HAS_NOISE=noise_P is not None, BLOCK_B=columns.samples, BLOCK_P=columns.columns,
                num_warps=columns.warps,
            )  # fmt: skip
    return out


def ghost_square_norms_linear(
    activations_BTI: Tensor, backprops_BTO: Tensor, bias: bool, blocking: Gram | Outer | None = None
) -> Tensor:
    """Squared norms of Σ_t b_t a_tᵀ and, with a bias, Σ_t b_t; `[B]` in float32. Any strides."""
    common = torch.promote_types(activations_BTI.dtype, backprops_BTO.dtype)
    a, b = activations_BTI.to(common), backprops_BTO.to(common)
    samples, positions, inputs = a.shape
    outputs, half = b.shape[2], common != torch.float32
    if blocking is None:
        cheaper = gram_is_cheaper(positions, inputs, outputs)
        blocking = gram_for(positions, half) if cheaper else outer_for(inputs, outputs, half)
    if not samples:
        return a.new_empty(0, dtype=torch.float32)
    if max(_reach(a), _reach(b)) >= _FARTHEST:
        return plain.ghost_square_norms_linear(a, b, bias)
    with on(a):
        return (
            _gram(a, b, bias, blocking)
            if isinstance(blocking, Gram)
            else _outer(a, b, bias, blocking)
        )


def _reach(x: Tensor) -> int:
    """Elements from the first to the last of one sample."""
    return sum(
        abs(stride) * max(0, size - 1)
        for stride, size in zip(x.stride()[1:], x.shape[1:], strict=True)
    )


def _gram(a: Tensor, b: Tensor, bias: bool, by: Gram) -> Tensor:
    samples, positions, inputs = a.shape
    tiles = max(1, blocks(positions, by.positions))
    square, length = a.new_empty((2, samples, tiles), dtype=torch.float32)
    margin = ghost_margin(inputs, b.shape[2], torch.float32)
    gram_kernel[(samples * tiles,)](
        a, b, square, length, positions, inputs, b.shape[2], tiles, *a.stride(), *b.stride(),
        float(bias), margin.activations, margin.backprops, BLOCK_T=by.positions, BLOCK_D=by.depth,
        PRECISION=exact(architecture(a.device)), num_warps=by.warps, num_stages=by.stages,
    )  # fmt: skip
    lengths = length.sum(1, dtype=torch.float64)
    total: Tensor = square.sum(1, dtype=torch.float64) + margin.relative * lengths.square()
    return total.clamp(min=0).to(torch.float32)


def _outer(a: Tensor, b: Tensor, bias: bool, by: Outer) -> Tensor:
    samples, positions, inputs = a.shape
    across = max(1, blocks(inputs, by.inputs))
    tiles = max(1, blocks(b.shape[2], by.outputs)) * across
    square = a.new_empty((samples, tiles), dtype=torch.float32)
    outer_kernel[(samples * tiles,)](
        a, b, square, positions, inputs, b.shape[2], tiles, across, *a.stride(), *b.stride(),
        BIAS=bias, BLOCK_O=by.outputs, BLOCK_I=by.inputs, BLOCK_T=by.positions,
        PRECISION=exact(architecture(a.device)), num_warps=by.warps, num_stages=by.stages,
    )  # fmt: skip
    return _added(square) * (1 + positions * _CUT)


def ghost_square_norms_conv2d(
    inputs: Tensor, backprops: Tensor, shape: Convolution, bias: bool, group_size: int
) -> Tensor:
    """As the reference, patches of a few samples at a time."""
    parts = [
        ghost_square_norms_linear(a, b, bias).view(-1, shape.groups).sum(1)
        for a, b in sequences(inputs, backprops, shape, group_size)
    ]
    return torch.cat(parts) if parts else inputs.new_empty(0, dtype=torch.float32)


def _added(parts: Tensor) -> Tensor:
    """`[B, parts]` summed in float64; what float32 cannot hold becomes infinite, and such a sample
    does not count.
    """
    return parts.sum(1, dtype=torch.float64).to(torch.float32)


def variants(arch: Architecture) -> Iterator[Variant]:
    """Every configuration that the launchers choose on their own; the largest of each kernel has
    the shortest name.
    """
    for element in ELEMENT.values():
        yield from _elementwise(element)
        for positions, size in ((16, "/16"), (32, "/32"), (64, "")):
            yield from _gram_variants(arch, element, size, gram_for(positions, element != "fp32"))
        for width, size in ((32, "/32"), (64, "")):
            yield from _outer_variants(
                arch, element, size, outer_for(width, width, element != "fp32")
            )


def _elementwise(element: str) -> Iterator[Variant]:
    for width, size in ((256, "/256"), (1024, "/1024"), (1 << 20, "")):
        rows = rows_for(width)
        types = {
            "G": f"*{element}",
            "OUT": "*fp32",
            "width": "i32",
            "stride": "i32",
            "parts": "i32",
        }
        yield Variant(
            f"square_norms/{element}{size}",
            square_kernel,
            types,
            {"BLOCK": rows.block, "STEPS": rows.steps},
            rows.warps,
            3,
        )
    for width, size in ((1024, "/1024"), (1 << 20, "")):
        by = columns_for(width)
        types = {
            "G": f"*{element}",
            "SQUARE": "*fp32",
            "NOISE": "*fp32",
            "OUT": "*fp32",
            "max_norm": "fp32",
        }
        types |= dict.fromkeys(("samples", "width", "stride"), "i32")
        constants = {"HAS_NOISE": True, "BLOCK_B": by.samples, "BLOCK_P": by.columns}
        yield Variant(f"clip_and_sum/{element}{size}", clip_kernel, types, constants, by.warps, 3)


_LAYOUTS = {"rows": ("stride_ai", "stride_bo"), "columns": ("stride_at", "stride_bt")}
"""Strides that are 1: of rows that lie one after the other (linear layers), and of columns that do
(patches of a convolution).
"""
_SIZES = (
    "positions",
    "inputs",
    "outputs",
    "tiles",
    "stride_ab",
    "stride_at",
    "stride_ai",
    "stride_bb",
    "stride_bt",
    "stride_bo",
)


def _gram_variants(arch: Architecture, element: str, size: str, by: Gram) -> Iterator[Variant]:
    for layout, ones in _LAYOUTS.items():
        types = {"A": f"*{element}", "B": f"*{element}", "SQUARE": "*fp32", "LENGTH": "*fp32"}
        types |= {name: "i32" for name in _SIZES if name not in ones} | dict.fromkeys(
            ("bias", "lost_a", "lost_b"), "fp32"
        )
        constants = {
            "BLOCK_T": by.positions,
            "BLOCK_D": by.depth,
            "PRECISION": exact(arch),
        } | dict.fromkeys(ones, 1)
        yield Variant(
            f"gram_{layout}/{element}{size}", gram_kernel, types, constants, by.warps, by.stages
        )


def _outer_variants(arch: Architecture, element: str, size: str, by: Outer) -> Iterator[Variant]:
    for layout, ones in _LAYOUTS.items():
        types = {"A": f"*{element}", "B": f"*{element}", "SQUARE": "*fp32", "across": "i32"}
        types |= {name: "i32" for name in _SIZES if name not in ones}
        constants = {
            "BIAS": True,
            "BLOCK_O": by.outputs,
            "BLOCK_I": by.inputs,
            "BLOCK_T": by.positions,
            "PRECISION": exact(arch),
        }
        yield Variant(
            f"outer_{layout}/{element}{size}",
            outer_kernel,
            types,
            constants | dict.fromkeys(ones, 1),
            by.warps,
            by.stages,
        )
