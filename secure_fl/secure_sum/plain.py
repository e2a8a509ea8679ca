"""No protection: packed integers as they are, for debugging and as the yardstick of the others.

Everyone on the path reads every update. The codec, the packing and the sums are those of the protected backends, so results are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.layout import FieldLayout, Integers
from secure_fl.secure_sum.masks import SlotSum
from secure_fl.secure_sum.prg import Slots


@dataclass(frozen=True)
class PlainSum:
    """`protect`, `add` and `open` without protection. Guarantee: none. Not covered: everything."""

    layout: FieldLayout

    def protect(self, values: Integers) -> bytes:
        """One block of integers `[n]` as little-endian slots, 8 bytes each."""
        return to_bytes(self.layout.pack(values))

    def start(self, fields: int) -> SlotSum:
        """An empty sum of blocks with so many fields."""
        return SlotSum(self.layout.slots(fields), self.layout.modulus)

    def add(self, total: SlotSum, body: bytes, fields: int) -> None:
        """Add one upload.

        Raises:
            SecureSumError: a body of another length, or a residue that is not below the modulus.
        """
        total.add(from_bytes(body, self.layout.slots(fields)))

    def open(self, total: SlotSum, fields: int) -> NDArray[np.int64]:
        """The sum, int64 `[fields]`."""
        return self.layout.unpack(total.total(), fields)


def to_bytes(slots: Slots) -> bytes:
    """Slots on the wire: little-endian, 8 bytes each; also the body of `masked` alone."""
    return bytes(view_of(slots))


def view_of(slots: Slots) -> memoryview:
    """`to_bytes` without a copy; it shows the slots as they are when it is read."""
    return slots.astype("<u8", copy=False).view(np.uint8).data


def from_bytes(body: bytes | memoryview, slots: int) -> Slots:
    """The inverse, read-only and without a copy.

    Raises:
        SecureSumError: a body of another length.
    """
    if len(body) != 8 * slots:
        raise SecureSumError("body of another length", field="upload", value=len(body), remedy=f"{8 * slots} bytes")
    return np.frombuffer(body, "<u8").astype(np.uint64, copy=False)
