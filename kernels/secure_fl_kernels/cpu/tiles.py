"""Walking a similarity matrix, or its lower triangle, in tiles that fit a core's cache."""

from __future__ import annotations

from math import log
from typing import NamedTuple

from torch import Tensor

from secure_fl_kernels import tuning
from secure_fl_kernels.processor import processor

LOG2E = 1 / log(2)

_MANY_ROWS = 1024
_EDGES = {"few": 256, "many": 512}
"""Tile edges, measured from 192 to 1,024 at 2,048 to 16,384 rows with 2 MiB of L2: 512² float32 are
1 MiB, and larger ones fall out of it.
"""

_VENDOR, _INSTRUCTIONS = "Intel", "AVX512"
"""Where torch's exp is faster than its exp2. With AVX2 exp2 takes half of its time, 0.7 ns against
1.3 an element, and on AMD's with AVX-512 a third, 0.3 against 0.9.
"""


class Tile(NamedTuple):
    """Rows `[top, bottom)` and columns `[left, right)`.

    Attributes:
        zero: its diagonal is left out: rows with themselves, or with their positives.
    """

    top: int
    bottom: int
    left: int
    right: int
    zero: bool

    def of(self, buffer: Tensor) -> Tensor:
        """The corner of a square `buffer` that is as large as the tile."""
        return buffer[: self.bottom - self.top, : self.right - self.left]

    @property
    def rows(self) -> slice:
        """The rows of the matrix that the tile covers."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """The columns of the matrix that the tile covers."""
        return slice(self.left, self.right)

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same."""
        return self.top == self.left


class Cut(NamedTuple):
    """How a matrix of similarities is cut, and by which exponential.

    Attributes:
        edge: rows and columns of a whole tile.
        base: 2 for exp2 of similarities in units of log₂, 0 for exp.
    """

    edge: int
    base: int

    @property
    def unit(self) -> float:
        """What similarities are multiplied by before the exponential: log₂ e, or 1."""
        return LOG2E if self.base == 2 else 1.0

    def exponential(self, similarities: Tensor) -> Tensor:
        """exp of similarities in these units, in place."""
        return similarities.exp2_() if self.base == 2 else similarities.exp_()


def cut_of(rows: int) -> Cut:
    """The measured cut on this processor (`secure-fl kernels tune`), or else the shipped one."""
    name = class_of(rows)
    found = tuning.choices(str(processor())).get(f"tiles/{name}")
    return Cut(*found) if found else shipped(name)


def class_of(rows: int) -> str:
    """`few` or `many`."""
    return "few" if rows <= _MANY_ROWS else "many"


def shipped(name: str) -> Cut:
    """The cut of a class of rows where nothing was measured."""
    here = processor()
    plain = _VENDOR in here.name and here.instructions.startswith(_INSTRUCTIONS)
    return Cut(_EDGES[name], 0 if plain else 2)


def edge_of(rows: int) -> int:
    """Rows and columns of a whole tile."""
    return cut_of(rows).edge


def rectangle(rows: int, columns: int, edge: int) -> list[Tile]:
    """All tiles of a matrix, row by row."""
    return [
        Tile(i, min(i + edge, rows), j, min(j + edge, columns), i == j)
        for i in range(0, rows, edge)
        for j in range(0, columns, edge)
    ]


def triangle(rows: int, edge: int | None = None) -> list[Tile]:
    """All tiles on or below the diagonal of a square matrix."""
    return [tile for tile in rectangle(rows, rows, edge or edge_of(rows)) if tile.left <= tile.top]


def two_views(count: int, edge: int | None = None) -> list[Tile]:
    """A triangle for two views of `count` rows each, whose tiles never straddle views: positives
    lie on tiles' diagonals.
    """
    edge = edge or edge_of(2 * count)
    across = [
        Tile(count + i, count + i_end, j, j_end, zero)
        for i, i_end, j, j_end, zero in rectangle(count, count, edge)
    ]
    second = [
        Tile(count + i, count + i_end, count + j, count + j_end, zero)
        for i, i_end, j, j_end, zero in triangle(count, edge)
    ]
    return triangle(count, edge) + across + second
