"""The second moment of unit rows and the spectral contrastive loss's spreading half, ‖M‖²_F with
M = ẐᵀẐ/N.

Rows are dealt out in slices, one `[W, W]` partial sum each, added in a fixed order. The pull at a
row is zM, one ordinary product. Reference: `reference.spectral_moment`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels import padding
from secure_fl_kernels.gpu.blocks import load_tile
from secure_fl_kernels.gpu.launch import Precision, blocks, on, precision
from secure_fl_kernels.gpu.ntxent import products
from secure_fl_kernels.gpu.rows import project, tangent
from secure_fl_kernels.gpu.variants import Architecture, Variant

_SLICE = 1024
_EDGE, _WARPS, _STAGES = 64, 4, 2


def _depth(product: Precision) -> int:
    """Rows added at once; three products in place of one take twice the registers."""
    return 16 if product == "tf32x3" else 32


@triton.jit
def moment_kernel(
    Z,
    PART,
    rows,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
    EDGE: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of Σ zzᵀ over one slice of rows. Axes: slices, tiles down, tiles across."""
    first = tl.program_id(0) * SLICE
    down = tl.program_id(1) * EDGE
    across = tl.program_id(2) * EDGE
    acc = tl.zeros([EDGE, EDGE], tl.float32)
    for row in range(first, tl.minimum(first + SLICE, rows), DEPTH):
        left = load_tile(Z, row, down, WIDTH, DEPTH, EDGE)
        right = load_tile(Z, row, across, WIDTH, DEPTH, EDGE)
        acc = tl.dot(tl.trans(left), right, acc, input_precision=PRECISION)
    i = down + tl.arange(0, EDGE)
    j = across + tl.arange(0, EDGE)
    corner = PART + tl.cast(tl.program_id(0), tl.int64) * WIDTH * WIDTH
    tl.store(corner + i[:, None] * WIDTH + j[None, :], acc)


def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(‖M‖²_F, inverse lengths, M `[W, W]` in float32) of raw rows `[N, D]`."""
    z, inverse, *_ = project(x, None)
    width, edge, slices = z.shape[1], min(z.shape[1], _EDGE), blocks(len(z), _SLICE)
    part = z.new_empty((slices, width, width), dtype=torch.float32)
    with on(x):
        moment_kernel[(slices, width // edge, width // edge)](
            z,
            part,
            len(z),
            WIDTH=width,
            SLICE=_SLICE,
            EDGE=edge,
            DEPTH=_depth(precision(z)),
            PRECISION=precision(z),
            num_warps=_WARPS,
            num_stages=_STAGES,
        )
    moment = part.sum(0).div_(len(x))
    return moment.square().sum(), inverse, moment


def backward(grad: Tensor, x: Tensor, inverse: Tensor, moment: Tensor) -> Tensor:
    """Gradient by the raw rows `[N, D]`."""
    pull = moment.new_zeros(padding.padded_rows(*x.shape))
    torch.mm(x.float() * inverse[:, None], moment[: x.shape[1]], out=pull[: len(x)])
    rate = (grad * (4 / len(inverse))).reshape(1)
    nothing = moment.new_empty(0, 0)
    return tangent(pull, rate, None, None, x, inverse, nothing, nothing)


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: half and single rows at 128 dimensions, of which wider rows are tiles."""
    for title, element, product in products(family):
        constants = {
            "WIDTH": 128,
            "SLICE": _SLICE,
            "EDGE": _EDGE,
            "DEPTH": _depth(product),
            "PRECISION": product,
        }
        types = {"Z": f"*{element}", "PART": "*fp32", "rows": "i32"}
        yield Variant(f"moment/{title}/128", moment_kernel, types, constants, _WARPS, _STAGES)
