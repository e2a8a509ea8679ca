"""Words of b bits as bytes: 54-bit ciphertext words in 6.75 bytes each, not the 8 of memory or the 7.5 of zstd.

A word is cut into planes of 32, 16, 8, 4, 2 and 1 bits, those that occur in b; planes below a byte put several words into one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_TYPES: dict[int, np.dtype[Any]] = {32: np.dtype("<u4"), 16: np.dtype("<u2"), 8: np.dtype("u1")}


def planes(bits: int) -> list[int]:
    """Widths that make up `bits`, widest first: 54 -> 32, 16, 4, 2."""
    return [width for width in (32, 16, 8, 4, 2, 1) if bits & width]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` words, `count` a multiple of 8."""
    return count * bits // 8


def pack_words(words: Words, bits: int) -> bytes:
    """Pack words, all below 2^bits.

    Args:
        words: `[n]` contiguous, n a multiple of 8.
        bits: 1 to 63.
    """
    parts, shift = [], np.uint64(0)
    for width in planes(bits):
        piece = words >> shift if shift else words
        if width >= 8:
            parts.append(piece.astype(_TYPES[width]).tobytes())
        else:
            parts.append(_join(piece.astype(np.uint8) & np.uint8(2**width - 1), width).tobytes())
        shift = np.uint64(int(shift) + width)
    return b"".join(parts)


def unpack_words(data: memoryview | bytes, count: int, bits: int) -> Words:
    """Inverse of `pack_words` -> uint64 `[count]`; the length of `data` is the caller's to check."""
    words, start, shift = np.zeros(count, np.uint64), 0, 0
    for width in planes(bits):
        size = count * width // 8
        piece = np.frombuffer(data, _TYPES[width], count, start) if width >= 8 else _split(np.frombuffer(data, np.uint8, size, start), width)
        words |= piece.astype(np.uint64) << np.uint64(shift)
        start, shift = start + size, shift + width
    return words


def _join(pieces: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    each = 8 // width
    rows = pieces.reshape(-1, each)
    joined = rows[:, 0].copy()
    for k in range(1, each):
        joined |= rows[:, k] << np.uint8(k * width)
    return joined


def _split(joined: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    each = 8 // width
    pieces = np.empty((joined.size, each), np.uint8)
    for k in range(each):
        np.bitwise_and(joined >> np.uint8(k * width), np.uint8(2**width - 1), out=pieces[:, k])
    return pieces.reshape(-1)
