"""How fields lie in the body of a message: one spelling for each value, and lengths that public
facts alone decide.

Numbers are big-endian. A list is its count, then its items; positions ascend strictly. Whatever
follows the last field is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from operator import lt
from typing import Generic

import numpy as np

from secure_fl.crypto.envelope import Bytes
from secure_fl.crypto.refusals import Reason, RefusedError

_COUNT, _SHORT, _LENGTH = struct.Struct(">I"), struct.Struct(">I"), struct.Struct(">Q")


def frames(items: Sequence[bytes]) -> bytes:
    """Several byte strings as one: how many, then each behind its length in eight bytes."""
    parts = chain.from_iterable((_LENGTH.pack(len(item)), item) for item in items)
    return b"".join([_COUNT.pack(len(items)), *parts])


def empty_frames(lengths: Sequence[int]) -> tuple[memoryview, list[memoryview]]:
    """(`frames` of items still to come, the places for them): too large to be copied."""
    data = np.empty(_COUNT.size + sum(_LENGTH.size + length for length in lengths), np.uint8).data
    _COUNT.pack_into(data, 0, len(lengths))
    start, places = _COUNT.size, []
    for length in lengths:
        _LENGTH.pack_into(data, start, length)
        start += _LENGTH.size + length
        places.append(data[start - length : start])
    return data, places


def unframe(data: Bytes, count: int | None = None) -> list[Bytes]:
    """The inverse of `frames`; views where `data` is one. Raises RefusedError: `truncated` or
    `malformed`; `wrong-chunk` for another number of items.

    Args:
        data: the bytes.
        count: how many items there must be, checked before any is looked at.
    """
    return BodyReader(data).frames(count)


def position_list(ascending: Sequence[int]) -> bytes:
    """Positions on a list as bytes: how many, then each in two."""
    return struct.pack(f">H{len(ascending)}H", len(ascending), *ascending)


def sized(data: bytes) -> bytes:
    """A byte string behind its length, in four bytes."""
    return _SHORT.pack(len(data)) + data


class BodyReader(Generic[Bytes]):
    """Takes a body apart from its beginning; `end` refuses what is left over.

    Args:
        data: the body; parts of it are views where it is one.

    Raises:
        RefusedError: from every method: `truncated` where the body is shorter than what is taken,
            `malformed` for another spelling than its writer's, `wrong-chunk` for another number of
            parts than expected.
    """

    def __init__(self, data: Bytes) -> None:
        self._data: Bytes = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> Bytes:
        """The next bytes, so many."""
        if count > self.left:
            raise _cut(len(self._data))
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        """The next whole number, of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def positions(self) -> tuple[int, ...]:
        """What `position_list` wrote: they ascend."""
        count = self.number(2)
        found = struct.unpack(f">{count}H", self.take(2 * count))
        if not all(map(lt, found, found[1:])):
            raise malformed("positions do not ascend")
        return found

    def sized(self, count: int) -> list[Bytes]:
        """What `sized` wrote, so many times."""
        return self._items(count, _SHORT)

    def frames(self, expected: int | None = None) -> list[Bytes]:
        """What `frames` wrote: as many items as expected, and nothing after them."""
        count = self.number(4)
        if expected not in (None, count):
            problem, remedy = f"{expected} parts are expected", "send all of them, once"
            raise RefusedError(Reason.WRONG_CHUNK, problem, "message", count, remedy)
        if count * _LENGTH.size > self.left:
            raise malformed("more items than bytes")
        found = self._items(count, _LENGTH)
        self.end()
        return found

    def _items(self, count: int, length: struct.Struct) -> list[Bytes]:
        """So many items, each behind its length."""
        data, end, found = self._data, len(self._data), list[Bytes]()
        for _ in range(count):
            start = self._at + length.size
            stop = start + (length.unpack_from(data, self._at)[0] if start <= end else end)
            if stop > end:
                raise _cut(end)
            found.append(data[start:stop])
            self._at = stop
        return found

    def end(self) -> None:
        """Refuse bytes after the last field."""
        if self.left:
            raise malformed("bytes after the last field")


def _cut(length: int) -> RefusedError:
    problem, remedy = "shorter than its fields", "send it as it was written"
    return RefusedError(Reason.TRUNCATED, problem, "body", length, remedy)


def malformed(problem: str) -> RefusedError:
    """The refusal of a body that no honest sender writes."""
    remedy = "send the message as it was written"
    return RefusedError(Reason.MALFORMED, problem, "body", "(hidden)", remedy)
