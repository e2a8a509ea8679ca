"""How a block becomes bytes (client), bytes add up (server), a sum becomes integers (holder)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from secure_fl.crypto.key_streams import RUN, WORDS, SignedStreams, Slots, Terms, runs
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.he.ciphertexts import CipherVector, Kind
from secure_fl.he.ciphertexts import body_bytes as cipher_bytes
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.layout import magnitude
from secure_fl.secure_sum.masks import SlotSum, subtract
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan

ClientCipher = BfvClient
ServerCipher = BfvServer
HolderCipher = BfvHolder


def client_cipher(plan: RoundPlan, key: SecretKey | PublicKey | None) -> ClientCipher | None:
    """What a client encrypts with; costs a tenth of a second, so keep it as long as the key. Raises
    SecureSumError: a protection that needs a key has none.
    """
    return None if _keyless(plan, key) or key is None else BfvClient(key)


def server_cipher(plan: RoundPlan) -> ServerCipher | None:
    """What the server adds ciphertexts with; it holds no key."""
    return None if plan.parameters is None else BfvServer(plan.parameters, plan.key_fingerprint)


def holder_cipher(plan: RoundPlan, key: HolderKey | None) -> HolderCipher | None:
    """What a key holder decrypts with. Raises SecureSumError: a needed key is missing."""
    return None if _keyless(plan, key) or key is None else BfvHolder(key)


def _keyless(plan: RoundPlan, key: object) -> bool:
    """Whether no key is needed; where one is, it must be there."""
    if plan.encrypted and key is None:
        remedy = f"`{plan.protection}` needs the key from the ceremony"
        raise SecureSumError("missing", "key", None, remedy)
    return not plan.encrypted


def to_bytes(slots: Slots) -> bytes:
    """Slots on the wire: little-endian, 8 bytes each; also the body of `masked` alone."""
    return bytes(_view_of(slots))


def _view_of(slots: Slots) -> memoryview:
    return slots.astype("<u8", copy=False).view(np.uint8).data


def from_bytes(body: bytes | memoryview, slots: int) -> Slots:
    """The inverse, read-only, without a copy. Raises SecureSumError: another length."""
    if len(body) != 8 * slots:
        raise SecureSumError("body of another length", "upload", len(body), f"{8 * slots} bytes")
    return np.frombuffer(body, "<u8").astype(np.uint64, copy=False)


def body_bytes(plan: RoundPlan, block: int) -> int:
    """Length of a block's body in an upload, whatever is inside."""
    numbers = plan.numbers(block)
    if plan.parameters is None:
        return 8 * numbers
    kind = Kind.FULL if plan.opener == "authority" else Kind.SEEDED
    return cipher_bytes(plan.parameters, numbers, kind.cut if plan.cut(block) else kind)


def protect(
    plan: RoundPlan,
    cipher: ClientCipher | None,
    block: int,
    values: Integers,
    terms: Terms,
    place: memoryview,
) -> None:
    """Write the body of one block: packed, masked by `terms` where there are any, encrypted where
    the plan says so.

    Slots come into being run by run, so that beside the integers and the body nothing of their size
    is in memory.

    Args:
        plan: the round's.
        cipher: from `client_cipher`.
        block: its number.
        values: int64 `[fields]`.
        terms: from `mask_terms`; empty without masks.
        place: `body_bytes` bytes, all of which are written.

    Raises:
        SecureSumError: a value beyond its field, or a place of another length.
    """
    numbers, length = plan.numbers(block), body_bytes(plan, block)
    if len(place) != length:
        raise SecureSumError("not the body's length", "place", len(place), f"{length} bytes")
    if cipher is not None:
        cipher.body(numbers, _runs(plan, numbers, values, terms), place, cut=plan.cut(block))
    else:
        start = 0
        for run in _runs(plan, numbers, values, terms):
            place[start : start + run.nbytes] = _view_of(run)
            start += run.nbytes


def _runs(plan: RoundPlan, numbers: int, values: Integers, terms: Terms) -> Iterator[Slots]:
    """A block's slots, zeros behind its fields, a run at a time in the same memory."""
    layout, room = plan.layout, min(RUN, numbers)
    slots, work = np.empty(room, np.uint64), np.empty(room, np.uint64)
    streams = SignedStreams(terms, layout.modulus, longest=room)
    for start, stop in runs(numbers):
        run = slots[: stop - start]
        layout.pack_run(values, start, run, work)
        if terms:
            streams.add_to(run)
        yield run


class Adder:
    """Running sums of all blocks, or of the first `blocks`: memory O(K·P)."""

    def __init__(
        self, plan: RoundPlan, cipher: ServerCipher | None, *, blocks: int | None = None
    ) -> None:
        self._plan, self._cipher = plan, cipher
        self._sums: list[Any] = []
        for block in range(plan.shape.blocks if blocks is None else blocks):
            size = plan.numbers(block)
            self._sums.append(
                SlotSum(size, plan.layout.modulus) if cipher is None else cipher.new_sum(size)
            )

    def read(self, block: int, body: bytes | memoryview) -> Slots | CipherVector:
        """Parse and check one body; `add` refuses nothing after this, so that an upload is added
        whole or not at all. Raises RefusedError: a damaged body.
        """
        numbers, plan = self._plan.numbers(block), self._plan
        if self._cipher is not None:
            return self._cipher.read(self._sums[block], body, cut=plan.cut(block))
        if len(body) != 8 * numbers:
            reason = Reason.TRUNCATED if len(body) < 8 * numbers else Reason.WRONG_LENGTH
            problem, remedy = f"{8 * numbers} bytes are expected", "send every block whole"
            raise RefusedError(reason, problem, "block", len(body), remedy)
        slots = from_bytes(body, numbers)
        if plan.layout.modulus != WORDS and int(slots.max()) >= plan.layout.modulus:
            problem = "a residue is not below the modulus"
            raise RefusedError(Reason.OUT_OF_RANGE, problem, "block", block, "pack with the codec")
        return slots

    def add(self, block: int, vector: Slots | CipherVector) -> None:
        """Add what `read` gave for this block."""
        if isinstance(vector, CipherVector):
            assert self._cipher is not None
            self._cipher.add_vector(self._sums[block], vector)
        else:
            self._sums[block].add(vector)

    def words(self) -> tuple[Slots, ...]:
        """Every block's running sum, reduced and flat, to be kept."""
        if self._cipher is None:
            return tuple(total.total() for total in self._sums)
        return tuple(self._cipher.words(total).ravel() for total in self._sums)

    def take_up(self, words: Sequence[Slots], uploads: int) -> None:
        """Go on with what `words` gave after so many uploads; nothing is added to it then. Raises
        SecureSumError: not the sums of this round.
        """
        if len(words) != len(self._sums):
            problem, remedy = "another number of blocks", "take the sums of this round"
            raise SecureSumError(problem, "sums", len(words), remedy)
        for total, row in zip(self._sums, words, strict=True):
            if self._cipher is None:
                total.take_up(row, uploads)
            else:
                self._cipher.take_up(total, row, uploads)

    def finish(self, block: int, masks: Slots | None = None) -> bytes:
        """The sum of a block without its masks, for whoever opens it; its memory is given back."""
        total, self._sums[block] = self._sums[block], None
        if self._cipher is None:
            slots = total.total()
            if masks is not None:
                subtract(slots, masks, self._plan.layout.modulus)
            return to_bytes(slots)
        if masks is None:
            return self._cipher.finish(total)
        return self._cipher.subtract_plain(total, masks)


def open_sum(
    plan: RoundPlan, cipher: HolderCipher | None, block: int, body: bytes, survivors: int
) -> Integers:
    """Fields of an unmasked sum. Raises RefusedError: the body's reasons, or `out-of-range` beyond
    what so many clients and their noise can have made; RoundRefusedError: `still-masked` where the
    guard behind the fields is not 0: masks are left, or the sum was damaged.
    """
    fields, numbers = plan.shape.fields(block), plan.numbers(block)
    if cipher is None:
        slots = from_bytes(body, numbers)
    else:
        slots = cipher.decrypt(body, numbers, cut=plan.cut(block))
    used = plan.layout.slots(fields)
    if slots[used:].any():
        problem = "the guard behind the fields is not 0"
        remedy = "discard the round: masks were not taken out, or the sum was changed"
        raise RoundRefusedError(RoundReason.STILL_MASKED, problem, "sum", f"block {block}", remedy)
    values = plan.layout.unpack(np.ascontiguousarray(slots[:used]), fields)
    one = plan.bound if block else plan.head_bound
    most = plan.layout.edge if one is None else min(survivors * one + plan.margin, plan.layout.edge)
    if magnitude(values) > most:
        remedy = "discard the round: an upload was damaged, or a client did not follow the codec"
        raise RefusedError(Reason.OUT_OF_RANGE, f"beyond ±{most}", "sum", f"block {block}", remedy)
    return values
