"""What `secure-fl kernels tune` tries on a GPU: tiles near the shipped one, for each loop over all
pairs, precision, width and number of rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf

import torch
from torch import Tensor

from secure_fl_kernels import padding, tuning
from secure_fl_kernels.gpu import ntxent, uniform
from secure_fl_kernels.gpu.launch import Tile, architecture, exact
from secure_fl_kernels.gpu.tiles import class_of, tile_for

SIZES = {"many": 16384, "few": 2048}
"""Rows of a view that stand for their class."""

_WIDTHS = {"128": 128, "64": 64, "wide": 512}
_KINDS = ("half", "exact", "tf32")
_SHORTEST = 0.005
_AGREE = {"half": 2e-2, "tf32": 1e-2, "exact": 1e-4}
_TEMPERATURE = 0.2


@dataclass(frozen=True)
class Shape:
    """One class of shapes by what stands for it.

    Attributes:
        kind: `half`, `exact` or `tf32`, as tiles are chosen by.
        rows: of a view.
    """

    kernel: str
    kind: str
    width: int
    rows: int
    device: torch.device

    @property
    def name(self) -> str:
        """Its key in the file."""
        how = "tf32" if self.kind == "tf32" else exact(architecture(self.device))
        return class_of(self.kernel, how, self.kind == "half", self.width, self.rows)

    @property
    def shipped(self) -> Tile:
        """The tile that runs where nothing was measured."""
        family = architecture(self.device)
        how = "tf32" if self.kind != "exact" else exact(family)
        return tile_for(self.kernel, family, how, self.width, self.kind == "half")


def shapes(device: torch.device, sizes: Mapping[str, int] = SIZES) -> list[Shape]:
    """All classes, those that most people meet first. The interpreter multiplies in one way only
    and has no tf32.
    """
    kinds = _KINDS if device.type == "cuda" else _KINDS[:2]
    return [
        Shape(kernel, kind, width, rows, device)
        for rows in sizes.values()
        for width in _WIDTHS.values()
        for kind in kinds
        for kernel in ("gradient", "sums", "uniformity")
    ]


def classes(found: Sequence[Shape]) -> list[tuning.Class]:
    """Every class with its tiles, the shipped one first."""
    return [tuning.Class(shape.name, candidates(shape.shipped, shape.width)) for shape in found]


def candidates(shipped: Tile, width: int) -> list[tuning.Choice]:
    """The shipped tile and its neighbours: another block, depth, number of warps or of stages."""
    return list(dict.fromkeys(tuple(tile) for tile in [shipped, *_near(shipped, width)]))


def _near(tile: Tile, width: int) -> Iterator[Tile]:
    found = [tile._replace(stages=stages) for stages in (1, 2, 3, 4)]
    found += [tile._replace(depth=depth) for depth in (32, 64, 128)]
    for rows, columns in ((64, 32), (64, 64), (128, 32), (128, 64), (128, 128)):
        found += [tile._replace(rows=rows, columns=columns, warps=warps) for warps in (4, 8)]
    for each in found:
        # rows of a warp are 16 at least, or warps repeat each other's work
        if each.depth <= width and each.rows >= 16 * each.warps:
            yield each


class Timer:
    """Seconds of one launch of a class's kernel with a tile; a tile that cannot run, or computes
    something else than the shipped one, is infinitely slow.
    """

    def __init__(self, found: Sequence[Shape]) -> None:
        self._shapes = {shape.name: shape for shape in found}

    def __call__(self, name: str, choice: tuning.Choice) -> float:
        """Seconds of one launch, by events on a GPU and by the clock elsewhere."""
        shape = self._shapes[name]
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if shape.kind == "tf32" else "highest")
        try:
            expected, found = launch(shape, shape.shipped), launch(shape, Tile(*choice))
            apart = torch.linalg.vector_norm((found - expected).double())
            if not apart <= _AGREE[shape.kind] * torch.linalg.vector_norm(expected.double()):
                return inf
            return _seconds(shape, Tile(*choice))
        except Exception:  # out of registers, shared memory or luck: it is not chosen
            return inf
        finally:
            torch.set_float32_matmul_precision(before)


def launch(shape: Shape, tile: Tile) -> Tensor:
    """What the class's kernel computes with this tile."""
    z, views = _rows(shape), 2
    if shape.kernel == "sums":
        return ntxent.row_sums(z, z, views, shape.rows, shape.rows, _TEMPERATURE, tile)[0]
    each = torch.ones(views * shape.rows, device=z.device)
    if shape.kernel == "uniformity":
        pull = uniform.pulls(z, each, views, tile=tile)[1]
        return pull.reshape(views, -1, shape.width)[:, : shape.rows]  # the rest is padding
    out = z.new_empty((len(each), shape.width), dtype=torch.float32)
    weight = torch.full_like(each, 1e-3)
    return ntxent.gradient(
        z, z, weight, weight, each, _positive(shape), each[:1], each, views, _TEMPERATURE, False,
        out, tile=tile,
    )  # fmt: skip


@cache
def _positive(shape: Shape) -> Tensor:
    """Every row's similarity with its positive."""
    z = _rows(shape)
    return ntxent.row_sums(z, z, 2, shape.rows, shape.rows, _TEMPERATURE)[1]


@cache
def _rows(shape: Shape) -> Tensor:
    """Unit rows in the kernel's units, padded by view."""
    count, width = padding.padded_rows(shape.rows, shape.width)
    drawn = torch.randn(2 * count, width, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(drawn) * ntxent.scale_of(_TEMPERATURE)
    return unit.to(shape.device, torch.float16 if shape.kind == "half" else torch.float32)


def _seconds(shape: Shape, tile: Tile) -> float:
    if shape.device.type != "cuda":
        began = time.perf_counter()
        launch(shape, tile)
        return time.perf_counter() - began
    loops, taken = 1, 0.0
    while taken < _SHORTEST:
        loops *= 2
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(loops):
            launch(shape, tile)
        end.record()
        end.synchronize()
        taken = start.elapsed_time(end) / 1000
    return taken / loops
