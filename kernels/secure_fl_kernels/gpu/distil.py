"""Projector distillation on a GPU: the loss and both gradients from one read of both inputs.

With p and q the softmaxes of `target` and `source` over their features at temperature τ, KL(p‖q) =
Σ p(log p − log q):
∂/∂source = (q − p)/τ,   ∂/∂target = p(log p − log q − KL)/τ.
Reference: `reference.distillation_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels.gpu.launch import ELEMENT, blocks, on
from secure_fl_kernels.gpu.variants import Architecture, Variant
from secure_fl_kernels.padding import WIDEST_DISTILLED

_HELD = 2048


@triton.jit
def _log_softmax(x):
    x -= tl.max(x, 1)[:, None]
    return x - tl.log(tl.sum(tl.exp(x), 1))[:, None]


@triton.jit
def distil_kernel(
    TARGET, SOURCE, LOSS, D_TARGET, D_SOURCE, count, stride_target, stride_source, sharpness,
    factor, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Every row's KL and both gradients of the mean. Axis: blocks of rows."""
    rows = tl.cast(tl.program_id(0), tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    there = (rows[:, None] < count) & (d[None, :] < D)
    outside = tl.where(d < D, 0.0, float("-inf"))[None, :]
    target = tl.load(TARGET + rows[:, None] * stride_target + d[None, :], mask=there, other=0.0).to(
        tl.float32
    )
    source = tl.load(SOURCE + rows[:, None] * stride_source + d[None, :], mask=there, other=0.0).to(
        tl.float32
    )
    log_p = _log_softmax(target * sharpness + outside)
    log_q = _log_softmax(source * sharpness + outside)
    p = tl.exp(log_p)
    apart = tl.where(d[None, :] < D, log_p, 0.0) - tl.where(d[None, :] < D, log_q, 0.0)
    kl = tl.sum(p * apart, 1)
    tl.store(LOSS + rows, kl, mask=rows < count)
    by_target = p * (apart - kl[:, None]) * factor
    by_source = (tl.exp(log_q) - p) * factor
    tl.store(
        D_TARGET + rows[:, None] * D + d[None, :],
        by_target.to(D_TARGET.dtype.element_ty),
        mask=there,
    )
    tl.store(
        D_SOURCE + rows[:, None] * D + d[None, :],
        by_source.to(D_SOURCE.dtype.element_ty),
        mask=there,
    )


def forward(target: Tensor, source: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """(mean KL of `[N, D]` rows, its gradient by target, by source)."""
    count, dimension = target.shape
    width = max(16, triton.next_power_of_2(dimension))
    rows = max(1, _HELD // width)
    loss = target.new_empty(count, dtype=torch.float32)
    by_target, by_source = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (target, source)
    )
    with on(target):
        distil_kernel[(blocks(count, rows),)](
            target, source, loss, by_target, by_source, count, target.stride(0), source.stride(0),
            1 / temperature, 1 / (count * temperature), D=dimension, WIDTH=width, ROWS=rows,
            num_warps=_warps(width),
        )  # fmt: skip
    return loss.mean(), by_target, by_source


def _warps(width: int) -> int:
    return 8 if width > _HELD else 4


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: every dtype, narrow and widest rows."""
    del family
    scalars = dict.fromkeys(("count", "stride_target", "stride_source"), "i32") | {
        "sharpness": "fp32",
        "factor": "fp32",
    }
    for name in ELEMENT.values():
        for width in (128, 512, WIDEST_DISTILLED):
            types = (
                dict.fromkeys(("TARGET", "SOURCE", "D_TARGET", "D_SOURCE"), f"*{name}")
                | {"LOSS": "*fp32"}
                | scalars
            )
            constants = {"D": width, "WIDTH": width, "ROWS": max(1, _HELD // width)}
            yield Variant(
                f"distil/{name}/{width}", distil_kernel, types, constants, _warps(width), 2
            )
