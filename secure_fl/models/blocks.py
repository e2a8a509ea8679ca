"""Rows computed in blocks of one size, so that a row's result does not hang on how many stand
beside it.

Libraries choose another order of summation for another number of rows, and two batches then differ
in the last bits of a row that both hold. In blocks of one size nothing is chosen anew. Mixed
precision is off inside: what is fixed is the same in training and afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 64
"""Rows of a block: cheap for a single row, and no slower for many than larger blocks are."""


def in_blocks(rowwise: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`rowwise` of the rows of `x`, `[N, ...]` -> `[N, ...]`, 64 at a time; zeros fill the last
    block up. All rows at once while a graph is exported, which is to take any number of them.
    """
    if torch.compiler.is_exporting():
        return rowwise(x)
    missing = -len(x) % ROWS if len(x) else ROWS
    filled = functional.pad(x, (0,) * (2 * x.ndim - 1) + (missing,)) if missing else x
    with torch.autocast(x.device.type, enabled=False):
        return torch.cat([rowwise(block) for block in filled.split(ROWS)])[: len(x)]
