"""How a block becomes bytes under each protection (client), how bytes add up (server), how a sum becomes integers again (key holder)."""

from __future__ import annotations

from typing import Any

import numpy as np

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.secure_sum.ciphertexts import CipherVector
from secure_fl.secure_sum.ckks import CkksClient, CkksHolder, CkksServer
from secure_fl.secure_sum.he_keys import HolderKey, PublicKey, SecretKey
from secure_fl.secure_sum.masks import SlotSum, subtract
from secure_fl.secure_sum.plain import from_bytes, to_bytes, view_of
from secure_fl.secure_sum.prg import WORDS, Slots
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.round_plan import Integers, RoundPlan

ClientCipher = BfvClient | CkksClient
ServerCipher = BfvServer | CkksServer
HolderCipher = BfvHolder | CkksHolder


def client_cipher(plan: RoundPlan, key: SecretKey | PublicKey | None) -> ClientCipher | None:
    """What a client encrypts with; costs a tenth of a second, so keep it as long as the key.

    Raises:
        SecureSumError: a protection that needs a key has none.
    """
    if not plan.encrypted:
        return None
    if key is None:
        raise SecureSumError("missing", field="key", value=None, remedy=f"`{plan.protection}` needs the key from the ceremony")
    return CkksClient(key) if plan.protection == "ckks" else BfvClient(key)


def server_cipher(plan: RoundPlan) -> ServerCipher | None:
    """What the server adds ciphertexts with; it holds no key."""
    if plan.parameters is None:
        return None
    return (CkksServer if plan.protection == "ckks" else BfvServer)(plan.parameters, plan.key_fingerprint)


def holder_cipher(plan: RoundPlan, key: HolderKey | None) -> HolderCipher | None:
    """What a key holder decrypts with.

    Raises:
        SecureSumError: a protection that needs a key has none.
    """
    if not plan.encrypted:
        return None
    if key is None:
        raise SecureSumError("missing", field="key", value=None, remedy=f"`{plan.protection}` needs the key from the ceremony")
    return CkksHolder(key) if plan.protection == "ckks" else BfvHolder(key)


def pack(plan: RoundPlan, block: int, values: Integers) -> Slots:
    """A block's fields as slots, zeros behind them up to `plan.numbers(block)`."""
    slots: Slots = np.empty(plan.numbers(block), np.uint64)
    used = plan.layout.slots(len(values))
    plan.layout.pack(values, slots[:used])
    slots[used:] = 0
    return slots


def protect(plan: RoundPlan, cipher: ClientCipher | None, block: int, values: Integers, slots: Slots | None = None) -> bytes | memoryview:
    """The body of one block: `slots`, packed and perhaps masked before, encrypted where the plan says so and else as they lie.

    `ckks` takes the fields.
    """
    if isinstance(cipher, CkksClient):
        padded = np.zeros(plan.numbers(block), np.int64)
        padded[: len(values)] = values
        return cipher.encrypt(padded)
    slots = pack(plan, block, values) if slots is None else slots
    return view_of(slots) if cipher is None else cipher.body(slots)


class Adder:
    """Running sums of all blocks: memory O(K·P), whatever the number of clients."""

    def __init__(self, plan: RoundPlan, cipher: ServerCipher | None) -> None:
        self._plan, self._cipher = plan, cipher
        self._sums: list[Any] = []
        for block in range(plan.shape.blocks):
            size = plan.numbers(block)
            self._sums.append(SlotSum(size, plan.layout.modulus) if cipher is None else cipher.new_sum(size))

    def read(self, block: int, body: bytes | memoryview) -> Slots | CipherVector:
        """Parse and check one body; `add` refuses nothing after this, so that an upload is added whole or not at all.

        Raises:
            RefusedError: a damaged body.
        """
        numbers, plan = self._plan.numbers(block), self._plan
        if self._cipher is not None:
            return self._cipher.read(self._sums[block], body)
        if len(body) != 8 * numbers:
            reason = Reason.TRUNCATED if len(body) < 8 * numbers else Reason.WRONG_LENGTH
            raise RefusedError(reason, f"{8 * numbers} bytes are expected", field="block", value=len(body), remedy="send every block whole")
        slots = from_bytes(body, numbers)
        if plan.layout.modulus != WORDS and int(slots.max()) >= plan.layout.modulus:
            raise RefusedError(Reason.OUT_OF_RANGE, "a residue is not below the modulus", field="block", value=block, remedy="pack with the codec")
        return slots

    def add(self, block: int, vector: Slots | CipherVector) -> None:
        """Add what `read` gave for this block."""
        if isinstance(vector, CipherVector):
            assert self._cipher is not None
            self._cipher.add_vector(self._sums[block], vector)
        else:
            self._sums[block].add(vector)

    def finish(self, block: int, masks: Slots | None = None) -> bytes:
        """The sum of a block without its masks, for whoever opens it; its memory is given back."""
        total, self._sums[block] = self._sums[block], None
        if self._cipher is None:
            slots = total.total()
            if masks is not None:
                subtract(slots, masks, self._plan.layout.modulus)
            return to_bytes(slots)
        if masks is not None and isinstance(self._cipher, BfvServer):
            return self._cipher.subtract_plain(total, masks)
        return self._cipher.finish(total)


def open_sum(plan: RoundPlan, cipher: HolderCipher | None, block: int, body: bytes, survivors: int) -> Integers:
    """Fields of an unmasked sum.

    Raises:
        RefusedError: the body's reasons, or `out-of-range` beyond what so many clients and their noise can have made.
        RoundRefusedError: `still-masked` where the guard behind the fields is not 0: masks are left, or the sum was damaged.
    """
    fields, numbers = plan.shape.fields(block), plan.numbers(block)
    if isinstance(cipher, CkksHolder):
        opened = cipher.decrypt(body, numbers)
        values, rest = opened[:fields], opened[fields:]
    else:
        slots = from_bytes(body, numbers) if cipher is None else cipher.decrypt(body, numbers)
        used = plan.layout.slots(fields)
        rest = slots[used:].view(np.int64)
        values = plan.layout.unpack(np.ascontiguousarray(slots[:used]), fields) if not rest.any() else np.zeros(0, np.int64)
    if rest.any():
        remedy = "discard the round: masks were not taken out, or the sum was changed"
        raise RoundRefusedError(RoundReason.STILL_MASKED, "the guard behind the fields is not 0", field="sum", value=f"block {block}", remedy=remedy)
    most = plan.layout.edge if plan.bound is None or block == 0 else min(survivors * plan.bound + plan.margin, plan.layout.edge)
    if values.size and (int(values.max()) > most or int(values.min()) < -most):
        remedy = "discard the round: an upload was damaged, or a client did not follow the codec"
        raise RefusedError(Reason.OUT_OF_RANGE, f"beyond ±{most}", field="sum", value=f"block {block}", remedy=remedy)
    return values
