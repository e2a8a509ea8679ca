"""How Triton's buffers are padded: to whole tiles, with zeros, so that no load in a hot loop needs a mask."""

from __future__ import annotations

ROWS = 128
"""Rows come in whole multiples of the tallest block."""

_NARROWEST, _WIDEST = 16, 128


def width(dimension: int) -> int:
    """Columns kept for `dimension`: a power of two from 16 to 128, or a multiple of 128."""
    if dimension >= _WIDEST:
        return -(-dimension // _WIDEST) * _WIDEST
    return max(_NARROWEST, 1 << (dimension - 1).bit_length())


def padded_rows(rows: int, dimension: int) -> tuple[int, int]:
    """Shape of a buffer of unit rows."""
    return -(-rows // ROWS) * ROWS, width(dimension)


def padded_own(rows: int, own: int) -> tuple[int, int]:
    """Shape of a buffer of own coordinates; up to 16 of them are one matrix instruction wide."""
    return -(-rows // ROWS) * ROWS, max(_NARROWEST, 1 << (own - 1).bit_length())
