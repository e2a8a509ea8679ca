"""Walking the lower triangle of a similarity matrix in tiles, on one thread or several.

Torch releases the interpreter's lock inside its operations, so Python threads over tiles keep all processors busy, and each
works on tiles that fit its cache. Torch's own threads inside small products do not: beside another process they collapse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

_SMALL, _LARGE, _MANY_ROWS = 256, 512, 4096
"""Tile edges: 256² float32 are 256 KiB and stay in L2; past 4,096 rows longer products pay more than cache misses cost."""


class Tile(NamedTuple):
    """Rows `[top, bottom)` and columns `[left, right)`, on or below the diagonal."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, buffer: Tensor) -> Tensor:
        """The corner of a square `buffer` that is as large as the tile."""
        return buffer[: self.bottom - self.top, : self.right - self.left]

    @property
    def diagonal(self) -> bool:
        """Whether the tile holds part of the matrix's diagonal."""
        return self.top == self.left


Work = Callable[[Iterator[Tile]], Tensor]


def edge_of(rows: int) -> int:
    """Rows and columns of a whole tile."""
    return _SMALL if rows <= _MANY_ROWS else _LARGE


def triangle(rows: int) -> list[Tile]:
    """All tiles on or below the diagonal of a square matrix."""
    return [tile for tile in rectangle(rows, rows) if tile.left <= tile.top]


def rectangle(rows: int, columns: int) -> list[Tile]:
    """All tiles of a matrix, row by row."""
    edge = edge_of(max(rows, columns))
    return [Tile(i, min(i + edge, rows), j, min(j + edge, columns)) for i in range(0, rows, edge) for j in range(0, columns, edge)]


def summed(work: Work, rows: int) -> Tensor:
    """`shared` over the triangle's tiles."""
    return shared(work, triangle(rows))


def shared(work: Work, tiles: list[Tile]) -> Tensor:
    """`work` over the tiles, dealt out to as many threads as torch has; the parts are added in thread order, so results repeat bit for bit.

    `work` returns a tensor of its own: accumulators are private, never shared.
    """
    before = torch.get_num_threads()
    threads = max(1, min(before, len(tiles)))
    if threads == 1:
        return work(iter(tiles))

    def one(number: int) -> Tensor:
        torch.set_num_threads(1)
        with torch.no_grad():
            return work(iter(tiles[number::threads]))

    try:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(one, range(threads)))
    finally:
        torch.set_num_threads(before)
    for part in parts[1:]:
        parts[0] += part
    return parts[0]
