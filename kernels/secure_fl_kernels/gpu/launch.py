"""What every launcher has to know: the architecture, the precision of its products, and the buffers
that kernels pass on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from secure_fl_kernels import padding
from secure_fl_kernels.gpu.variants import Architecture

Precision = str
"""How float32 operands are multiplied: `tf32` has 10 bits of mantissa, `tf32x3` and `ieee` nearly
all 23.
"""

ELEMENT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Triton's names of the dtypes taken."""


class Tile(NamedTuple):
    """Rows and columns of a program's block of similarities, dimensions held at once, warps, and
    pipeline stages.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def architecture(device: torch.device) -> Architecture:
    """The family whose tiles run on this device; the interpreter runs those of sm90."""
    if device.type == "cpu":
        return "sm90"
    if torch.version.hip is not None:
        return "gfx942"
    return {9: "sm90", 10: "sm100"}.get(torch.cuda.get_device_capability(device)[0], "sm80")  # type: ignore[return-value]


def precision(z: Tensor) -> Precision:
    """How float32 products are computed, by `torch.get_float32_matmul_precision()`; half precision
    has one way only.
    """
    if z.device.type == "cpu" or z.dtype != torch.float32:
        return "ieee" if z.device.type == "cpu" else "tf32"
    family = architecture(z.device)
    return (
        "tf32"
        if torch.get_float32_matmul_precision() != "highest" and family != "gfx942"
        else exact(family)
    )


def exact(family: Architecture) -> Precision:
    """Products of float32 operands to float32's accuracy, on matrix units: three tf32 products,
    which AMD has no need of.
    """
    return "ieee" if family == "gfx942" else "tf32x3"


def on(x: Tensor) -> AbstractContextManager[object]:
    """The device of `x` as the current one, where a launch goes."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def blocks(count: int, size: int) -> int:
    """Blocks of `size` that cover `count`."""
    return ceil(count / size)


def span_of(columns: Tensor | None, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """U_S padded with zeros, `[W, S']`; empty without columns."""
    if columns is None:
        return torch.empty(0, 0, dtype=dtype, device=device)
    span = torch.zeros(
        width, padding.padded_own(1, columns.shape[1])[1], dtype=dtype, device=device
    )
    span[: columns.shape[0], : columns.shape[1]] = columns
    return span
