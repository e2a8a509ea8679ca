"""Words of b bits as bytes: 54-bit ciphertext words in 6.75 bytes each, not the 8 of memory or the 7.5 of zstd.

A word is cut into planes of 32, 16, 8, 4, 2 and 1 bits, those that occur in b; planes below a byte put several words into one.
Words are worked on in runs that stay in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_TYPES: dict[int, np.dtype[Any]] = {32: np.dtype("<u4"), 16: np.dtype("<u2"), 8: np.dtype("u1")}
RUN = 1 << 15
"""Words read at a time: whole ciphertexts of any set here."""


def planes(bits: int) -> list[int]:
    """Widths that make up `bits`, widest first: 54 -> 32, 16, 4, 2."""
    return [width for width in (32, 16, 8, 4, 2, 1) if bits & width]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` words, `count` a multiple of 8."""
    return count * bits // 8


class PackedWords:
    """Words, all below 2^bits, in bytes that are there already.

    Args:
        data: uint8 `[packed_bytes(count, bits)]`.
        count: words in all, a multiple of 8.
        bits: 1 to 63.
    """

    def __init__(self, data: NDArray[np.uint8], count: int, bits: int) -> None:
        self._count, self._planes, start = count, list[tuple[int, NDArray[Any]]](), 0
        for width in planes(bits):
            part = data[start : start + count * width // 8]
            self._planes.append((width, part.view(_TYPES[width]) if width >= 8 else part))
            start += len(part)

    def put(self, first: int, words: Words) -> None:
        """Write words `[n]` from place `first` on, both multiples of 8."""
        rest, stop = words.copy(), first + words.size
        for width, plane in self._planes:
            if width >= 8:
                np.copyto(plane[first:stop], rest, casting="unsafe")
            else:
                _join(rest.astype(np.uint8), width, plane[first * width // 8 : stop * width // 8])
            rest >>= np.uint64(width)

    def take(self, first: int, stop: int) -> Words:
        """Read words `[stop − first]`."""
        words: Words = np.zeros(stop - first, np.uint64)
        for width, plane in reversed(self._planes):
            words <<= np.uint64(width)
            words |= plane[first:stop] if width >= 8 else _split(plane[first * width // 8 : stop * width // 8], width)
        return words

    def runs(self) -> Iterator[Words]:
        """All words, 32,768 at a time."""
        return (self.take(start, min(start + RUN, self._count)) for start in range(0, self._count, RUN))


def _join(pieces: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None:
    rows = pieces.reshape(-1, 8 // width)
    rows &= np.uint8(2**width - 1)
    out[:] = rows[:, 0]
    for k in range(1, 8 // width):
        out |= rows[:, k] << np.uint8(k * width)


def _split(joined: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    each = 8 // width
    pieces = np.empty((joined.size, each), np.uint8)
    for k in range(each):
        np.bitwise_and(joined >> np.uint8(k * width), np.uint8(2**width - 1), out=pieces[:, k])
    return pieces.reshape(-1)
