"""How much memory a function allocates, and that no allocation grows with the square of the rows.

Counted where torch makes tensors, so it holds on any device and under the interpreter, whose
launchers allocate with torch. A custom operator is one operation to torch, and shows its results
alone: count around the launcher that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Allocations:
    """What was allocated inside the block.

    Attributes:
        largest: bytes of the largest single storage.
        total: bytes of all of them, freed or not.
    """

    largest: int = 0
    total: int = 0


class _Counting(TorchDispatchMode):
    def __init__(self, counted: Allocations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = counted

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {
            leaf.untyped_storage().data_ptr()
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        made = {
            leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes()
            for leaf in tree_leaves(result)
            if isinstance(leaf, Tensor)
        }
        for address, size in made.items():
            if address not in given:
                self.counted.total += size
                self.counted.largest = max(self.counted.largest, size)
        return result


@contextmanager
def allocations() -> Iterator[Allocations]:
    """Count what operations inside the block allocate; memory that an operation uses inside itself
    does not show.
    """
    counted = Allocations()
    with _Counting(counted):
        yield counted
