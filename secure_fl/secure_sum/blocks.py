"""One client's vector in blocks that open apart: the head, what pools share, each pool's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import SecureSumError

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class BlockShape:
    """Fields of one client's vector: a head, a part that all pools share, and K equal pool blocks.

    Args:
        pools: K.
        width: fields of a pool block.
        shared: fields of the shared block; 0 for none.
        head: fields of the head block; the first K are the counts. None for K.
        counted: False where the head holds no counts; then there is one pool and its count is the
            number of survivors.
    """

    pools: int
    width: int
    shared: int = 0
    head: int | None = None
    counted: bool = True

    def __post_init__(self) -> None:
        least = self.pools if self.counted else 0
        fits = 1 <= self.pools < 60_000 and self.width >= 1 and self.shared >= 0
        if not fits or self.head_fields < least or not (self.counted or self.pools == 1):
            found = (self.pools, self.width, self.shared, self.head, self.counted)
            remedy = "K counts in the head; without them one pool"
            raise SecureSumError("blocks do not fit together", "shape", found, remedy)

    @property
    def head_fields(self) -> int:
        """How many fields block 0 has."""
        return (self.pools if self.counted else 0) if self.head is None else self.head

    @property
    def first_pool(self) -> int:
        """The number of the block that pool 0 has; the others follow."""
        return 2 if self.shared else 1

    @property
    def blocks(self) -> int:
        """How many blocks an upload has, head and shared block included."""
        return self.first_pool + self.pools

    def fields(self, block: int) -> int:
        """How many fields a block has, by its number."""
        if block == 0:
            return self.head_fields
        return self.width if block >= self.first_pool else self.shared

    def after_counts(self, passing: Sequence[int]) -> tuple[int, ...]:
        """Blocks opened at the second opening: the shared one, and pools that passed."""
        return (*range(1, self.first_pool), *(self.first_pool + pool for pool in passing))


@dataclass(frozen=True)
class BlockVector:
    """One client's integers.

    Args:
        head: int64 `[head_fields]`.
        pools: K arrays int64 `[width]`; those of pools not chosen are zeros, or noise alone.
        shared: int64 `[shared]`, None where the shape has none.
    """

    head: Integers = field(repr=False)
    pools: Sequence[Integers] = field(repr=False)
    shared: Integers | None = field(default=None, repr=False)

    @classmethod
    def one_hot(
        cls,
        shape: BlockShape,
        choice: int,
        values: Integers,
        *,
        shared: Integers | None = None,
        unit: int = 1,
    ) -> BlockVector:
        """`values` in the chosen pool's block, zeros (which share one array) in all others, `unit`
        in the chosen count. Raises SecureSumError: no such pool.
        """
        if not 0 <= choice < shape.pools:
            raise SecureSumError("no such pool", "choice", "(hidden)", f"0 to {shape.pools - 1}")
        head = np.zeros(shape.head_fields, np.int64)
        zeros = np.broadcast_to(np.int64(0), shape.width)
        if shape.counted:
            head[choice] = unit
        pools = [values if pool == choice else zeros for pool in range(shape.pools)]
        return cls(head, pools, shared)

    def block(self, shape: BlockShape, number: int) -> Integers:
        """One block's fields, int64. Raises SecureSumError: not the shape's length or type."""
        if number == 0:
            values: Any = self.head
        elif number < shape.first_pool:
            values = self.shared
        else:
            pool = number - shape.first_pool
            values = self.pools[pool] if len(self.pools) == shape.pools else None
        length = (shape.fields(number),)
        if not isinstance(values, np.ndarray) or (values.dtype, values.shape) != (np.int64, length):
            dtype, form = getattr(values, "dtype", None), getattr(values, "shape", None)
            problem, remedy = "not the block that the shape says", f"int64 [{shape.fields(number)}]"
            raise SecureSumError(problem, f"block {number}", (dtype, form, len(self.pools)), remedy)
        return values
