"""Words of b bits as bytes: 54-bit ciphertext words in 6.75 bytes each, not the 8 of memory or the
7.5 of zstd.

A word is cut into planes of 32, 16, 8, 4, 2 and 1 bits, those that occur in b, the widest lowest;
planes below a byte put several words into one. So a plane of whole bytes is every second, fourth or
eighth element of the words seen as its type, and what is left lies in one byte of each. Words are
worked on in runs that stay in a cache. Memory is little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.key_streams import runs

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

_TYPES: dict[int, np.dtype[Any]] = {width: np.dtype(f"<u{width // 8}") for width in (32, 16, 8)}
_SPREAD: dict[int, np.dtype[Any]] = {4: np.dtype("<u2"), 2: np.dtype("<u4"), 1: np.dtype("<u8")}
"""What holds the words of one byte of a narrow plane, a byte each."""
PIECE = 1 << 12
"""Words looked at together for one beyond a bound."""


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

    def __init__(self, data: Bytes, count: int, bits: int) -> None:
        self._count, self._bits, start, low = count, bits, 0, 0
        self._planes = list[tuple[int, int, NDArray[Any]]]()
        for width in planes(bits):
            part = data[start : start + count * width // 8]
            self._planes.append((width, low, part.view(_TYPES[width]) if width >= 8 else part))
            start, low = start + len(part), low + width

    def put(self, first: int, words: Words) -> None:
        """Write words `[n]` from place `first` on, both multiples of 8."""
        stop, narrow = first + words.size, None
        for width, low, plane in self._planes:
            if width >= 8:
                plane[first:stop] = _part(words, width, low)
                continue
            if narrow is None:
                narrow = _part(words, 8, low).copy()
            plane[first * width // 8 : stop * width // 8] = _join(
                narrow & np.uint8(2**width - 1), width
            )
            narrow >>= np.uint8(width)

    def take(self, first: int, stop: int) -> Words:
        """Read words `[stop − first]`, both places multiples of 8."""
        words: Words = np.zeros(stop - first, np.uint64)
        for width, low, plane in self._planes:
            if width >= 8:
                _part(words, width, low)[:] = plane[first:stop]
            else:
                narrow = _split(plane[first * width // 8 : stop * width // 8], width)
                narrow <<= np.uint8(low % 8)
                _part(words, 8, low)[...] |= narrow
        return words

    def runs(self) -> Iterator[Words]:
        """All words, a run at a time: whole ciphertexts of any set here."""
        return (self.take(start, stop) for start, stop in runs(self._count))

    def below(self, bound: int) -> bool:
        """Whether every word is below a bound.

        Where the bound's bits above a plane are all ones, as those of the largest primes of b bits
        are, a word reaches it only if its bits in this plane reach the bound's: all but a few
        pieces need no look at their other planes.
        """
        width, low, plane = self._planes[min(1, len(self._planes) - 1)]
        above = self._bits - low - width
        telling = width >= 8 and bound >> (low + width) == (1 << above) - 1
        least = (bound >> low) & ((1 << width) - 1) if telling else 0
        for start in range(0, self._count, PIECE):
            stop = min(start + PIECE, self._count)
            if (least == 0 or int(plane[start:stop].max()) >= least) and int(
                self.take(start, stop).max()
            ) >= bound:
                return False
        return True


def _part(words: Words, width: int, low: int) -> NDArray[Any]:
    """Bits `low` to `low + width` of every word, writable; whole bytes, at multiples of these."""
    low -= low % width
    return words.view(_TYPES[width])[low // width :: 64 // width]


def _join(pieces: Bytes, width: int) -> Bytes:
    """Bytes that hold `width` bits each, several to a byte."""
    spread = pieces.view(_SPREAD[width])
    for step in _steps(width):
        spread |= spread >> step
    return spread.astype(np.uint8)


def _split(joined: Bytes, width: int) -> Bytes:
    """The bytes that `_join` made these of."""
    spread = joined.astype(_SPREAD[width])
    for step in reversed(_steps(width)):
        spread |= spread << step
    pieces = spread.view(np.uint8)
    pieces &= np.uint8(2**width - 1)
    return pieces


def _steps(width: int) -> list[np.unsignedinteger[Any]]:
    """Shifts that bring byte k from bit 8k to k·width: k·(8 − width) is a sum of some of them."""
    return [
        _SPREAD[width].type((8 - width) * 2**k)
        for k in range(_SPREAD[width].itemsize.bit_length() - 1)
    ]
