"""Bytes that the server of a large round keeps for a while, and need not have in memory.

What neighbours deal to each other grows with their number times that of the clients: far more, in
a large round, than the one sum that the server keeps.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from mmap import mmap
from os import SEEK_END
from tempfile import SpooledTemporaryFile, TemporaryFile
from weakref import finalize

_IN_MEMORY = 1 << 18
_ZEROS = bytes(1 << 20)


def spool(size: int) -> memoryview:
    """So many zero bytes, to be written: beyond 256 KiB in a file that has no name and ends with
    the view, else, or where no such file is to be had, in memory.
    """
    if size > _IN_MEMORY:
        try:
            return memoryview(_mapped(size))
        except OSError:  # no folder for it, or no room
            pass
    return memoryview(bytearray(size))


def settled(part: memoryview) -> bytes | memoryview:
    """A part of a spool, written to the end: read-only, and without the rest where that is in
    memory.
    """
    return bytes(part) if isinstance(part.obj, bytearray) else part.toreadonly()


def _mapped(size: int) -> mmap:
    with TemporaryFile() as file:
        # a full disk shows here, and not as a signal when a page is written
        for start in range(0, size, len(_ZEROS)):
            file.write(_ZEROS[: size - start])
        file.flush()
        return mmap(file.fileno(), size)


class Table:
    """Cells of one size, in equal rows.

    Args:
        rows, columns: how many.
        size: bytes of a cell.
    """

    def __init__(self, rows: int, columns: int, size: int) -> None:
        self._columns, self._size = columns, size
        self._data = spool(rows * columns * size)

    def row(self, row: int) -> memoryview:
        """A row's cells, one after the other, to be read and written."""
        length = self._columns * self._size
        return self._data[row * length :][:length]

    def cell(self, row: int, column: int) -> memoryview:
        """One cell, to be read and written."""
        start = (row * self._columns + column) * self._size
        return self._data[start : start + self._size]

    def cells(self, row: int) -> list[bytes]:
        """The cells of a row that were written: a cell's first byte is never 0."""
        data, size = bytes(self.row(row)), self._size
        return [data[at : at + size] for at in range(0, len(data), size) if data[at]]

    def filled(self, row: int) -> int:
        """How many cells of a row were written."""
        first = bytes(self.row(row)[:: self._size])
        return self._columns - first.count(0)


class Log:
    """Byte strings in the order in which they came; beyond 64 KiB in a file that has no name."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=1 << 16)  # noqa: SIM115
        # Before any finaliser of a cycle that this is a part of: those come in no order.
        finalize(self, self._file.close)
        self._sizes = array("Q")

    def extend(self, items: Iterable[bytes]) -> None:
        """Add some at the end."""
        for item in items:
            self._file.write(item)
            self._sizes.append(len(item))

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        found = [self._file.read(size) for size in self._sizes]
        self._file.seek(0, SEEK_END)
        return iter(found)
