"""NT-Xent on a GPU: project, row sums, and one gradient pass whose epilogue ends at the raw rows.

Reference: `reference.nt_xent_loss` and `reference.dsr_loss`; the loops are in `contrast`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log, log2
from typing import NamedTuple

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import soft_positive
from secure_fl_kernels.gpu import contrast
from secure_fl_kernels.gpu.launch import (
    Precision,
    Tile,
    blocks,
    exact,
    on,
    precision,
    span_of,
)
from secure_fl_kernels.gpu.rows import project
from secure_fl_kernels.gpu.tiles import tile_for, tile_of
from secure_fl_kernels.gpu.variants import Architecture, Loop, Variant, variant

LOG2E = 1 / log(2)
_LARGEST_EXPONENT = 120
"""Exponentials and their sums stay below 2^120, and single ones above 2^-120: float32 holds
2^±126 exactly.
"""


def scale_of(temperature: float) -> float:
    """Factor of the unit rows that makes their products similarities in units of log₂."""
    return float((LOG2E / temperature) ** 0.5)


def online(columns: int, temperature: float) -> bool:
    """Whether the range demands a running maximum."""
    return LOG2E / temperature + log2(columns) > _LARGEST_EXPONENT


def row_sums(
    left: Tensor,
    right: Tensor,
    views: int,
    rows: int,
    columns: int,
    temperature: float,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """(sums over all but the row's own index, or their log₂ where the range demands it; the
    positive's similarity), `[views · rows]`.

    Args:
        left: padded scaled unit rows, `rows` a view; likewise `right` and `columns`.
    """
    tile = tile or tile_of("sums", left, rows)
    sums, positive = (left.new_empty(views * rows, dtype=torch.float32) for _ in range(2))
    with on(left):
        contrast.row_sums_kernel[(blocks(rows, tile.rows), views)](
            left, right, sums, positive, rows, columns, len(left) // views, len(right) // views,
            WIDTH=left.shape[1], VIEWS=views, ONLINE=online(views * columns, temperature),
            M=tile.rows, N=tile.columns, DEPTH=min(tile.depth, left.shape[1]),
            PRECISION=precision(left), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return sums, positive


class Softmax(NamedTuple):
    """What both passes need of every row, `[rows]` each, in units of log₂.

    Attributes:
        ahead: log₂ of the sum over all but the positive, less the positive's similarity; the loss
            is softplus of it.
        positive: the positive's similarity.
    """

    ahead: Tensor
    positive: Tensor

    @classmethod
    def of(cls, sums: Tensor, positive: Tensor, running: bool) -> Softmax:
        """Rows' softmaxes from the sums of `row_sums` and the positives' similarities."""
        return cls((sums if running else sums.log2()) - positive, positive)

    def loss(self) -> Tensor:
        """The loss, as a mean over the rows."""
        return soft_positive(self.ahead / LOG2E).mean()

    def pull(self) -> Tensor:
        """1 − the positive's probability, for each row."""
        return torch.sigmoid(self.ahead / LOG2E)

    def weight(self, running: bool) -> Tensor:
        """log₂ of the whole sum where a maximum is kept, else the sum's reciprocal."""
        whole = self.positive + soft_positive(self.ahead / LOG2E) * LOG2E
        return whole if running else torch.exp2(-whole)


def gradient(
    left: Tensor, right: Tensor, a_left: Tensor, a_right: Tensor, pull: Tensor, positive: Tensor,
    grad: Tensor, inverse: Tensor, views: int, temperature: float, running: bool, out: Tensor,
    regulariser: tuple[Tensor, Tensor, Tensor] | None = None, tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Gradient `[views · rows, D]` by the raw rows of `left`, written to `out`, of a sum over rows
    that `grad` weighs.

    Args:
        a_left: with `a_right` what `contrast.gradient_kernel` weighs pairs by.
        pull: of the positive, `[pairs]`; with fewer than rows the others have none.
        regulariser: ω, own coordinates and span.
    """
    half = left.dtype != torch.float32
    tile = tile or tile_of("gradient", left, len(inverse) // views)
    # Each G is about 1/columns and at most 2; float16 keeps 11 bits of it only above 2^-14, and
    # ends at 2^16.
    boost = 2.0 ** min(14, int(log2(max(len(a_right), 2)))) if half else 1.0
    a_left, a_right = (a - log2(boost) if running else a * boost for a in (a_left, a_right))
    chunk, nothing = min(tile.depth, left.shape[1]), left.new_empty((0, 0), dtype=torch.float32)
    omega, own, span = (nothing, nothing, nothing) if regulariser is None else regulariser
    rows, padded = len(inverse) // views, len(left) // views
    energy = (
        nothing
        if regulariser is None
        else own.float().square().sum(1).reshape(views, -1)[:, :rows].contiguous()
    )
    with on(left):
        contrast.gradient_kernel[(blocks(rows, tile.rows), blocks(left.shape[1], chunk), views)](
            left, right, a_left, a_right, pull * boost, grad.float(), positive, inverse, omega,
            energy, own, span, out, rows, len(a_right) // views, len(pull) // views, padded,
            len(right) // views, 1 / (temperature * scale_of(temperature) * boost),
            1 / scale_of(temperature), D=out.shape[1], WIDTH=left.shape[1], OWNED=span.shape[1],
            VIEWS=views, ONLINE=running, M=tile.rows, N=tile.columns, DEPTH=chunk, CHUNK=chunk,
            PRECISION=precision(left), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out


def forward(x: Tensor, temperature: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(loss, padded unit rows, inverse lengths, row statistics `[2, M]`, own coordinates, energies)
    of two views' raw rows `[M, D]`.
    """
    z, inverse, _, own, energy, _ = project(x, columns, 2, scale_of(temperature))
    softmax = Softmax.of(
        *row_sums(z, z, 2, len(x) // 2, len(x) // 2, temperature), online(len(x), temperature)
    )
    return softmax.loss(), z, inverse, torch.stack(softmax), own, energy


def backward(
    grad: Tensor, weights: Tensor | None, z: Tensor, inverse: Tensor, statistics: Tensor,
    own: Tensor, columns: Tensor | None, temperature: float, dimension: int, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Gradient `[M, D]` by the raw rows of grad · loss, plus the regulariser's with weights ω."""
    count, softmax = len(inverse), Softmax(*statistics)
    running = online(count, temperature)
    a, pull = softmax.weight(running), softmax.pull()
    both = pull + pull.roll(count // 2)
    regulariser = (
        None if weights is None else (weights, own, span_of(columns, z.shape[1], z.dtype, z.device))
    )
    out = z.new_empty((count, dimension), dtype=dtype)
    return gradient(
        z,
        z,
        a,
        a,
        both,
        softmax.positive,
        grad / count,
        inverse,
        2,
        temperature,
        running,
        out,
        regulariser,
    )


def variants(family: Architecture) -> Iterator[Variant]:
    """Shipped: half and single rows, rows held whole and in chunks, one buffer (NT-Xent) and two
    (InfoNCE), and online.
    """
    for title, element, product in products(family):
        for width in (64, 128, 512):
            yield from _pair(family, title, element, width, product, VIEWS=2, ONLINE=False)
        yield from _pair(family, title, element, 128, product, VIEWS=2, ONLINE=True)
        yield from _pair(family, title, element, 128, product, VIEWS=1, ONLINE=False)


def products(family: Architecture) -> list[tuple[str, str, Precision]]:
    """(title, element of the unit rows, precision of products) that quadratic kernels are
    shipped for.
    """
    single = sorted({exact(family), "ieee" if family == "gfx942" else "tf32"})
    return [("half", "fp16", "tf32"), *((f"fp32.{product}", "fp32", product) for product in single)]


def _pair(
    family: Architecture, title: str, element: str, width: int, product: Precision, **kind: int
) -> Iterator[Variant]:
    """Row sums and gradient of one kind."""
    names = ("SUMS", "POSITIVE", "A_LEFT", "A_RIGHT", "PULL", "GRAD", "INVERSE", "OMEGA", "ENERGY")
    types = dict.fromkeys(names, "*fp32") | dict.fromkeys(
        ("LEFT", "RIGHT", "OWN", "SPAN"), f"*{element}"
    )
    types["OUT"] = "*fp32" if element == "fp32" else "*bf16"
    types |= dict.fromkeys(
        ("count", "columns", "pairs", "padded_left", "padded_right"), "i32"
    ) | dict.fromkeys(("factor", "shrink"), "fp32")
    loss = ("ntxent" if kind["VIEWS"] == 2 else "infonce") + ("_online" if kind["ONLINE"] else "")
    for kernel, function, outputs in (
        ("sums", contrast.row_sums_kernel, 0),
        ("gradient", contrast.gradient_kernel, 1),
    ):
        tile = tile_for(kernel, family, product, width, element == "fp16")
        constants = {
            "WIDTH": width,
            "M": tile.rows,
            "N": tile.columns,
            "DEPTH": tile.depth,
            "PRECISION": product,
            **kind,
        }
        if outputs:
            constants |= {
                "D": width,
                "OWNED": 64 if kind["VIEWS"] == 2 and not kind["ONLINE"] else 0,
                "CHUNK": tile.depth,
            }
        loop = Loop(tile.rows * tile.columns, 1, width + outputs * tile.depth)
        yield variant(f"{loss}_{kernel}/{title}/{width}", function, types, constants, tile, loop)
