"""NT-Xent within disjoint groups on a GPU: loss, gradient and the gradient's squared norm of every
group in one program.

A group's 2m rows and their similarities fit one tile; rows are read three times, for their lengths,
the products and the gradient:
    dx_i = (Σ_k H_ik z_k − (Σ_k H_ik z_i·z_k) z_i) / (2mτ‖x_i‖),
    H = P + Pᵀ − 2·partner, P the softmax of each row.
Products are of unit rows z, half-precision ones kept in float16: all they are made of is bounded,
where raw rows would carry 1/‖x_i‖‖x_k‖ beyond the range of a half, and one short row's infinity
into the gradients of its whole group.
Reference: `reference.group_nt_xent_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels.gpu.launch import ELEMENT, exact, on, precision
from secure_fl_kernels.gpu.variants import Architecture, Variant
from secure_fl_kernels.padding import LARGEST_GROUP
from secure_fl_kernels.reference.losses import SMALLEST_NORM

_DEPTH, _WARPS = 64, 4


@triton.jit
def _rows_of_group(
    FIRST, SECOND, group, size, column, D: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr
):
    """Both views' rows of one group, one after the other, zero beyond them."""
    r = tl.arange(0, ROWS)[:, None]
    d = (column + tl.arange(0, DEPTH))[None, :]
    at = (tl.cast(group, tl.int64) * size + r) * D + d
    first = tl.load(FIRST + at, mask=(r < size) & (d < D), other=0.0)
    second = tl.load(SECOND + at - size * D, mask=(r >= size) & (r < 2 * size) & (d < D), other=0.0)
    return tl.where(r < size, first, second).to(tl.float32)


@triton.jit
def _store_gradient(
    h, inverse, factor, FIRST, SECOND, D_FIRST, D_SECOND, group, size, D: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the gradient by both views' raw rows, h · unit rows · factor / length; returns each
    row's squared norm, `[ROWS]`.
    """
    KEPT: tl.constexpr = tl.float32 if FIRST.dtype.element_ty == tl.float32 else tl.float16
    r = tl.arange(0, ROWS)[:, None]
    square = tl.zeros([ROWS], tl.float32)
    for column in range(0, D, DEPTH):
        x = _rows_of_group(FIRST, SECOND, group, size, column, D, ROWS, DEPTH)
        z = (x * inverse[:, None]).to(KEPT)
        pull = tl.dot(h.to(KEPT), z, input_precision=PRECISION)
        gradient = pull * (inverse * factor)[:, None]
        square += tl.sum(gradient * gradient, 1)
        d = (column + tl.arange(0, DEPTH))[None, :]
        at = (tl.cast(group, tl.int64) * size + r) * D + d
        out = gradient.to(D_FIRST.dtype.element_ty)
        tl.store(D_FIRST + at, out, mask=(r < size) & (d < D))
        tl.store(D_SECOND + at - size * D, out, mask=(r >= size) & (r < 2 * size) & (d < D))
    return square


@triton.jit
def group_kernel(
    FIRST, SECOND, LOSS, SQUARE, D_FIRST, D_SECOND, size, sharpness, factor, smallest,
    D: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Loss, gradient and its squared norm of one group. Axis: groups."""
    group = tl.program_id(0)
    r = tl.arange(0, ROWS)
    KEPT: tl.constexpr = tl.float32 if FIRST.dtype.element_ty == tl.float32 else tl.float16
    length = tl.zeros([ROWS], tl.float32)
    for column in range(0, D, DEPTH):
        x = _rows_of_group(FIRST, SECOND, group, size, column, D, ROWS, DEPTH)
        length += tl.sum(x * x, 1)
    length = tl.sqrt(length)
    tiny = length < smallest
    inverse = tl.where(tiny, 0.0, 1.0 / tl.where(tiny, 1.0, length))
    cosine = tl.zeros([ROWS, ROWS], tl.float32)
    for column in range(0, D, DEPTH):
        x = _rows_of_group(FIRST, SECOND, group, size, column, D, ROWS, DEPTH)
        z = (x * inverse[:, None]).to(KEPT)
        cosine = tl.dot(z, tl.trans(z), cosine, input_precision=PRECISION)
    partner = tl.where(r < size, r + size, r - size)
    pairs = (r[None, :] < 2 * size) & (r[None, :] != r[:, None])
    s = tl.where(pairs, cosine * sharpness, float("-inf"))
    top = tl.max(s, 1)
    p = tl.exp(s - top[:, None])
    total = tl.sum(p, 1)
    p = tl.where((r < 2 * size)[:, None], p / total[:, None], 0.0)
    mine = (r[None, :] == partner[:, None]) & (r[:, None] < 2 * size)
    row_loss = (
        tl.where(r < 2 * size, top + tl.log(total), 0.0)
        - tl.sum(tl.where(mine, cosine, 0.0), 1) * sharpness
    )
    tl.store(LOSS + group, tl.sum(row_loss, 0) / (2 * size))
    h = p + tl.trans(p) - tl.where(mine, 2.0, 0.0)
    along = tl.sum(h * cosine, 1)
    h -= tl.where(r[None, :] == r[:, None], along[:, None], 0.0)
    square = _store_gradient(
        h, inverse, factor, FIRST, SECOND, D_FIRST, D_SECOND, group, size, D, ROWS, DEPTH, PRECISION
    )
    tl.store(SQUARE + group, tl.sum(square, 0))


def forward(
    first: Tensor, second: Tensor, size: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(losses `[G]`, each group's gradient by both views `[G · size, D]`, its squared
    norm `[G]`).
    """
    groups, dimension = len(first) // size, first.shape[1]
    rows = max(16, triton.next_power_of_2(2 * size))
    loss, square = (first.new_empty(groups, dtype=torch.float32) for _ in range(2))
    by_first, by_second = torch.empty_like(first), torch.empty_like(second)
    with on(first):
        group_kernel[(groups,)](
            first, second, loss, square, by_first, by_second, size, 1 / temperature,
            1 / (2 * size * temperature), SMALLEST_NORM, D=dimension, ROWS=rows, DEPTH=_DEPTH,
            PRECISION=precision(first), num_warps=_WARPS, num_stages=1,
        )  # fmt: skip
    return loss, by_first, by_second, square


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: every dtype, the smallest and the largest group; any width is the same loop."""
    scalars = {"size": "i32", "sharpness": "fp32", "factor": "fp32", "smallest": "fp32"}
    for dtype, name in ELEMENT.items():
        types = (
            dict.fromkeys(("FIRST", "SECOND", "D_FIRST", "D_SECOND"), f"*{name}")
            | dict.fromkeys(("LOSS", "SQUARE"), "*fp32")
            | scalars
        )
        for rows in (16, 2 * LARGEST_GROUP):
            constants = {
                "D": 128,
                "ROWS": rows,
                "DEPTH": _DEPTH,
                "PRECISION": exact(family) if dtype == torch.float32 else "tf32",
            }
            yield Variant(f"groups{rows}/{name}/128", group_kernel, types, constants, _WARPS, 1)
