"""What Triton's kernels hold and how, for those who must know it without importing triton.

Buffers of unit rows are padded with zeros to whole tiles, so that no load in a hot loop needs
a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDEST_DISTILLED = 4096
"""Dimensions of a row that distillation holds in registers; wider ones are left to plain torch."""

LARGEST_GROUP = 16
"""Examples of a group whose 32 rows and similarities are held in registers; larger ones are left to
batched products of torch.
"""

ROWS = 128
"""Rows come in whole multiples of the tallest block."""

_NARROWEST, _WIDEST = 16, 128


def width(dimension: int) -> int:
    """Columns kept for `dimension`: a power of two from 16 to 128, or a multiple of 128."""
    if dimension >= _WIDEST:
        return -(-dimension // _WIDEST) * _WIDEST
    return max(_NARROWEST, 1 << (dimension - 1).bit_length())


def padded_rows(rows: int, dimension: int) -> tuple[int, int]:
    """Shape of a buffer that holds so many unit rows of this dimension, in whole tiles."""
    return -(-rows // ROWS) * ROWS, width(dimension)


def padded_own(rows: int, own: int) -> tuple[int, int]:
    """Shape of a buffer of own coordinates; up to 16 of them are one matrix instruction wide."""
    return -(-rows // ROWS) * ROWS, max(_NARROWEST, 1 << (own - 1).bit_length())


def kept(x: Tensor) -> torch.dtype:
    """The dtype that unit rows are kept in: float16 for half-precision rows, bfloat16 ones too.

    Unit rows and what is made of them are bounded, so bfloat16's range is of no use and float16's
    three more bits are.
    """
    return torch.float32 if x.dtype == torch.float32 else torch.float16
