"""Rows: onto the sphere and back, with the dimension-scaled regulariser on the way.

`project` reads raw rows once and writes unit rows; `tangent` gathers what pulls at a unit row and
writes the gradient by the raw row. Both walk a row twice, chunk by chunk, so that any width fits;
the second time it comes from cache. Reference: `reference.normalize`; the regulariser's algebra is
in `subspace`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels import padding
from secure_fl_kernels.gpu.blocks import load_tile
from secure_fl_kernels.gpu.launch import ELEMENT, Tile, blocks, exact, on, precision, span_of
from secure_fl_kernels.gpu.variants import Architecture, Variant, variant
from secure_fl_kernels.reference.losses import SMALLEST_NORM

TILE = Tile(rows=32, columns=0, depth=64, warps=4, stages=2)


@triton.jit
def _raw(rows, columns, inside, D: tl.constexpr):
    """Some columns of the rows that begin at `rows`, in float32; zeros beyond them."""
    mask = inside[:, None] & (columns[None, :] < D)
    return tl.load(rows + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def project_kernel(
    X, SPAN, Z, INVERSE, SQUARE, OWN, ENERGY, count, padded, stride, scale, smallest,
    D: tl.constexpr, WIDTH: tl.constexpr, OWNED: tl.constexpr, ROWS: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z = scale · x/‖x‖ padded with zeros; 1/‖x‖; ‖z‖² of z as stored; c = (x/‖x‖)U_S and ‖c‖².
    Axes: blocks of rows, views.
    """
    first = tl.program_id(0) * ROWS
    view = tl.cast(tl.program_id(1), tl.int64)
    rows = first + tl.arange(0, ROWS)
    inside = rows < count
    d = tl.arange(0, DEPTH)
    raw = X + (view * count + rows)[:, None] * stride
    length = tl.zeros([ROWS], tl.float32)
    for start in range(0, WIDTH, DEPTH):
        x = _raw(raw, start + d, inside, D)
        length += tl.sum(x * x, 1)
    length = tl.sqrt(length)
    tiny = length < smallest
    inverse = tl.where(tiny, 0.0, 1.0 / tl.where(tiny, 1.0, length))
    square = tl.zeros([ROWS], tl.float32)
    if OWNED > 0:
        own = tl.zeros([ROWS, OWNED], tl.float32)
    for start in range(0, WIDTH, DEPTH):
        x = _raw(raw, start + d, inside, D)
        unit = x * inverse[:, None]
        z = (unit * scale).to(Z.dtype.element_ty)
        tl.store(Z + (view * padded + rows)[:, None] * WIDTH + (start + d)[None, :], z)
        square += tl.sum(z.to(tl.float32) * z.to(tl.float32), 1)
        if OWNED > 0:
            span = load_tile(SPAN, start, 0, OWNED, DEPTH, OWNED)
            own = tl.dot(unit.to(span.dtype), span, own, input_precision=PRECISION)
    tl.store(INVERSE + view * count + rows, inverse, mask=inside)
    tl.store(SQUARE + view * count + rows, square, mask=inside)
    if OWNED > 0:
        place = OWN + (view * padded + rows)[:, None] * OWNED + tl.arange(0, OWNED)[None, :]
        tl.store(place, own.to(OWN.dtype.element_ty))
        tl.store(ENERGY + view * count + rows, tl.sum(own * own, 1), mask=inside)


@triton.jit
def _pulls(
    PULL, X, SPAN, own, inverse, others, rate, align, omega, rows, count, padded, view, column,
    D: tl.constexpr, WIDTH: tl.constexpr, OWNED: tl.constexpr, ALIGNED: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(unit rows, everything that pulls at them) for one chunk of dimensions."""
    d = (column + tl.arange(0, DEPTH))[None, :]
    there = (rows[:, None] < count) & (d < D)
    z = (
        tl.load(X + (view * count + rows)[:, None] * D + d, mask=there, other=0.0).to(tl.float32)
        * inverse[:, None]
    )
    v = tl.load(PULL + (view * padded + rows)[:, None] * WIDTH + d) * rate
    if ALIGNED:
        other = tl.load(X + ((1 - view) * count + rows)[:, None] * D + d, mask=there, other=0.0).to(
            tl.float32
        )
        v -= other * (others * align)[:, None]
    if OWNED > 0:
        v += (
            tl.dot(
                own,
                tl.trans(load_tile(SPAN, column, 0, OWNED, DEPTH, OWNED)),
                input_precision=PRECISION,
            )
            * omega[:, None]
        )
    return z, v


@triton.jit
def tangent_kernel(
    PULL, RATE, ALIGN, OMEGA, X, INVERSE, OWN, SPAN, OUT, count, padded, D: tl.constexpr,
    WIDTH: tl.constexpr, OWNED: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(v − (ẑ·v)ẑ)/‖x‖ with v = rate·pull − align·(the other view's ẑ) + ω·cU_Sᵀ. Axes: blocks of
    rows, views.
    """
    first = tl.program_id(0) * ROWS
    view = tl.cast(tl.program_id(1), tl.int64)
    rows = first + tl.arange(0, ROWS)
    inside = rows < count
    inverse = tl.load(INVERSE + view * count + rows, mask=inside, other=0.0)
    rate = tl.load(RATE + view)
    align = 0.0
    others = inverse
    omega = inverse
    own = inverse
    if ALIGNED:
        align = tl.load(ALIGN)
        others = tl.load(INVERSE + (1 - view) * count + rows, mask=inside, other=0.0)
    if OWNED > 0:
        omega = tl.load(OMEGA + view * count + rows, mask=inside, other=0.0)
        own = load_tile(OWN, view * padded + first, 0, OWNED, ROWS, OWNED)
    along = tl.zeros([ROWS], tl.float32)
    for column in range(0, WIDTH, DEPTH):
        z, v = _pulls(
            PULL, X, SPAN, own, inverse, others, rate, align, omega, rows, count, padded, view,
            column, D, WIDTH, OWNED, ALIGNED, DEPTH, PRECISION,
        )  # fmt: skip
        along += tl.sum(z * v, 1)
    for column in range(0, WIDTH, DEPTH):
        z, v = _pulls(
            PULL, X, SPAN, own, inverse, others, rate, align, omega, rows, count, padded, view,
            column, D, WIDTH, OWNED, ALIGNED, DEPTH, PRECISION,
        )  # fmt: skip
        d = (column + tl.arange(0, DEPTH))[None, :]
        out = ((v - along[:, None] * z) * inverse[:, None]).to(OUT.dtype.element_ty)
        tl.store(OUT + (view * count + rows)[:, None] * D + d, out, mask=inside[:, None] & (d < D))


def project(
    x: Tensor, columns: Tensor | None, views: int = 1, scale: float = 1.0, tile: Tile = TILE
) -> tuple[Tensor, ...]:
    """(scale · unit rows, padded by view; inverse lengths; squared lengths as stored; own
    coordinates; energies; span) of `[views · N, D]`.
    """
    count, padded = len(x) // views, padding.padded_rows(len(x) // views, 1)[0]
    width = padding.width(x.shape[1])
    z = x.new_empty((views * padded, width), dtype=padding.kept(x))
    span = span_of(columns, width, z.dtype, z.device)
    own = z.new_empty(len(z) if columns is not None else 0, span.shape[1])
    inverse, square = (x.new_empty(len(x), dtype=torch.float32) for _ in range(2))
    energy = x.new_empty(len(x) if columns is not None else 0, dtype=torch.float32)
    with on(x):
        project_kernel[(blocks(padded, tile.rows), views)](
            x, span, z, inverse, square, own, energy, count, padded, x.stride(0), scale,
            SMALLEST_NORM, D=x.shape[1], WIDTH=width, OWNED=span.shape[1], ROWS=tile.rows,
            DEPTH=min(width, tile.depth), PRECISION=precision(span), num_warps=tile.warps,
            num_stages=tile.stages,
        )  # fmt: skip
    return z, inverse, square, own, energy, span


def tangent(
    pull: Tensor,
    rate: Tensor,
    align: Tensor | None,
    omega: Tensor | None,
    x: Tensor,
    inverse: Tensor,
    own: Tensor,
    span: Tensor,
    tile: Tile = TILE,
) -> Tensor:
    """Gradient by raw rows `[views · N, D]`: rate `[views]` · pull, less align · the other view's
    unit rows, plus ω · own.

    Args:
        pull: float32, padded by view as `project` pads; its part along the rows does not matter.
    """
    views, padded = len(rate), len(pull) // len(rate)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    with on(x):
        tangent_kernel[(blocks(len(x) // views, tile.rows), views)](
            pull, rate, rate if align is None else align, rate if omega is None else omega, x,
            inverse, own, span, out, len(x) // views, padded, D=x.shape[1], WIDTH=pull.shape[1],
            OWNED=0 if omega is None else span.shape[1], ALIGNED=align is not None, ROWS=tile.rows,
            DEPTH=min(pull.shape[1], tile.depth), PRECISION=precision(span), num_warps=tile.warps,
            num_stages=tile.stages,
        )  # fmt: skip
    return out


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: every dtype, narrow and wide rows, without own dimensions and with 64, which stand
    for all counts.
    """
    integers = dict.fromkeys(("count", "padded"), "i32")
    single = ("INVERSE", "SQUARE", "ENERGY", "PULL", "RATE", "ALIGN", "OMEGA")
    floats = dict.fromkeys(single, "*fp32") | dict.fromkeys(("scale", "smallest"), "fp32")
    for name in ELEMENT.values():
        types = floats | integers | {"stride": "i32"} | dict.fromkeys(("X", "OUT"), f"*{name}")
        types |= dict.fromkeys(("Z", "OWN", "SPAN"), "*fp32" if name == "fp32" else "*fp16")
        for width in (128, 512):
            for owned in (0, 64):
                constants = {
                    "D": width,
                    "WIDTH": width,
                    "OWNED": owned,
                    "ROWS": TILE.rows,
                    "DEPTH": min(width, TILE.depth),
                }
                constants["PRECISION"] = exact(family)  # type: ignore[assignment]
                title = f"{name}/{width}" + (f"/own{owned}" if owned else "")
                yield variant(f"project/{title}", project_kernel, types, constants, TILE)
                yield variant(
                    f"tangent/{title}", tangent_kernel, types, constants | {"ALIGNED": True}, TILE
                )
