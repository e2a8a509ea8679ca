"""How signed fields lie in a slot: v = f₀ + 2^b·f₁ + … modulo the slot's modulus.

The fields of a vector of n lie in planes: slot j of h = ⌈n/fields⌉ holds fields j, j + h, …, so
packing reads and writes runs, not strides. Decoding takes the representative nearest to 0, then
each field f = ((v + 2^(b−1)) mod 2^b) − 2^(b−1) and v ← (v − f)/2^b; the last field is what
remains, so that a sum beyond the edge is seen by the check on the range and not folded back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.key_streams import RUN, WORDS, Slots, check_modulus, check_slots, runs
from secure_fl.errors import SecureSumError
from secure_fl.he.parameters import BATCHING_PRIME

WIDEST = 39
"""The most bits that a field may have: one such field fills a slot of either modulus."""

Integers = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class FieldLayout:
    """Fields of `bits` bits, `fields_per_slot` in a residue modulo `modulus`. The default is BFV's,
    with or without masks. Raises SecureSumError: sums at the edge of every field could reach half
    of the modulus, or there is no mask stream for it.
    """

    bits: int = 20
    fields_per_slot: int = 2
    modulus: int = BATCHING_PRIME

    def __post_init__(self) -> None:
        check_modulus(self.modulus)
        narrow = 2 <= self.bits <= WIDEST and self.fields_per_slot >= 1
        ones = sum(1 << (self.bits * number) for number in range(self.fields_per_slot))
        if not narrow or 2 * self.edge * ones >= self.modulus:
            found = (self.bits, self.fields_per_slot, self.modulus)
            remedy = "fewer or narrower fields: sums at the edge stay below half of the modulus"
            raise SecureSumError("fields do not fit the slot", "layout", found, remedy)

    @classmethod
    def words(cls) -> FieldLayout:
        """Layout of `masked` alone: three of the same 20-bit fields in a word modulo 2^64, so its
        sums equal those of other backends.
        """
        return cls(bits=20, fields_per_slot=3, modulus=WORDS)

    @classmethod
    def whole(cls, modulus: int = BATCHING_PRIME) -> FieldLayout:
        """One field a slot, as wide as a slot of BFV's allows: for sums over examples, whose bound
        grows with how many there are. Twice or three times the slots of the other layouts.
        """
        return cls(bits=WIDEST, fields_per_slot=1, modulus=modulus)

    @property
    def edge(self) -> int:
        """Largest magnitude of a field: 2^(bits−1) − 1."""
        return (1 << (self.bits - 1)) - 1

    def slots(self, fields: int) -> int:
        """How many slots hold so many fields."""
        return -(-fields // self.fields_per_slot)

    def pack(self, values: Integers) -> Slots:
        """Signed integers `[n]` as residues, uint64 `[⌈n/fields_per_slot⌉]`; linear: packed noise
        may be added to packed values. Raises SecureSumError: not a vector of signed integers, or a
        value beyond the field's edge.
        """
        if values.ndim != 1 or values.dtype.kind != "i":
            problem = "not a vector of signed integers"
            raise SecureSumError(problem, "values", (values.dtype, values.shape), "quantise first")
        packed: Slots = np.empty(self.slots(len(values)), np.uint64)
        work = np.empty(min(RUN, len(packed)), np.uint64)
        for start, stop in runs(len(packed)):
            self.pack_run(values, start, packed[start:stop], work)
        return packed

    def pack_run(self, values: Integers, start: int, out: Slots, work: Slots) -> None:
        """Pack the slots from `start` on that `out` has room for, so that the whole vector need not
        be in memory. Raises SecureSumError: a value beyond the field's edge.

        Args:
            values: all fields, signed integers `[n]`.
            start: the first slot.
            out: uint64 `[run]`; slots behind the last one become 0.
            work: uint64, as long as `out` or longer; its contents are spoiled.
        """
        slots = self.slots(len(values))
        used = min(len(out), max(slots - start, 0))
        out[used:] = 0
        starts = [plane * slots + start for plane in range(self.fields_per_slot)]
        planes = [values[first : first + used] for first in starts]
        self._pack_planes(out[:used].view(np.int64), planes, work[:used].view(np.int64))

    def unpack(self, slots: Slots, fields: int) -> NDArray[np.int64]:
        """Opened residues as signed integers, int64 `[fields]`; each below `edge` in magnitude
        unless a sum passed its field. Raises SecureSumError: another number of slots than `fields`
        need, or a residue that is not reduced.
        """
        check_slots(slots)
        if len(slots) != self.slots(fields):
            remedy = f"{fields} fields take {self.slots(fields)} slots"
            raise SecureSumError("wrong number of slots", "slots", len(slots), remedy)
        if self.modulus != WORDS and len(slots) and int(slots.max()) >= self.modulus:
            remedy = "reduce the sum before it is unpacked"
            raise SecureSumError("a residue is not below the modulus", "slots", "(hidden)", remedy)
        values = np.empty(fields, np.int64)
        half, mask = 1 << (self.bits - 1), (1 << self.bits) - 1
        for start, stop in runs(len(slots)):
            rest = self._centred(slots[start:stop])
            for plane in range(self.fields_per_slot):
                out = values[plane * len(slots) + start : plane * len(slots) + stop]
                field = rest if plane + 1 == self.fields_per_slot else ((rest + half) & mask) - half
                out[:] = field[: len(out)]
                rest = (rest - field) >> self.bits
        return values

    def _pack_planes(
        self, total: NDArray[np.int64], planes: list[Integers], work: NDArray[np.int64]
    ) -> None:
        """Pack one run of slots from each plane's; the last planes may end early."""
        if any(magnitude(plane) > self.edge for plane in planes):
            problem, remedy = "a value lies beyond its field", "clamp, or derive a coarser grid"
            raise SecureSumError(problem, "values", f"|value| > {self.edge}", remedy)
        *rest, last = planes
        total[: len(last)], total[len(last) :] = last, 0
        for plane in reversed(rest):
            total <<= self.bits
            total[: len(plane)] += plane
        self._wrap(total, work)

    def _wrap(self, total: NDArray[np.int64], work: NDArray[np.int64]) -> None:
        if self.modulus != WORDS:
            np.right_shift(total, 63, out=work)
            work &= self.modulus
            total += work

    def _centred(self, slots: Slots) -> NDArray[np.int64]:
        if self.modulus == WORDS:
            return slots.view(np.int64)
        values = slots.astype(np.int64)
        values -= (values > self.modulus // 2) * np.int64(self.modulus)
        return values


def magnitude(integers: Integers) -> int:
    """Largest magnitude of integers, 0 of none; −2^63, whose absolute value int64 does not hold,
    has one too.
    """
    return max(int(integers.max()), -int(integers.min())) if integers.size else 0
