"""Triton: per-sample squared norms, ghost norms of linear layers and convolutions, clipped sums.

Every program owns what it stores: nothing is added atomically, and the few numbers that programs
leave are summed by torch in float64, in a fixed order. Results therefore repeat bit for bit on
one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from secure_fl_kernels.gpu.gradient_kernels import (
    clip_kernel,
    gram_kernel,
    outer_kernel,
    square_kernel,
)
from secure_fl_kernels.gpu.launch import ELEMENT, architecture, blocks, exact, on
from secure_fl_kernels.gpu.variants import Architecture, Variant
from secure_fl_kernels.reference import gradients as plain
from secure_fl_kernels.reference.gradients import (
    Convolution,
    ghost_margin,
    gram_is_cheaper,
    sequences,
)

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
