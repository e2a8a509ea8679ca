"""Who opens sums: counts first, proved, then only pools whose opened count reaches the minimum,
each block once.

Guarantee: a holder that follows this file decrypts no pool below the minimum, nothing before t
holders of every survivor's shares signed one set (under masks), no count that it did not add up
itself from what survivors signed, and gives out integers only.
Assumes: the server took the masks out of the one set that was signed.
Not covered: a server that shifts an encrypted sum of a pool that passes (BFV is malleable): range
checks and the guard see damage, not a well-made shift.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from blake3 import blake3

from secure_fl.secure_sum.block_codec import HolderCipher, open_sum
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.graph import commitment
from secure_fl.secure_sum.key_directory import need
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan


@dataclass(frozen=True)
class Opened:
    """What a round reveals.

    Args:
        survivors: clients in the sums.
        head: int64 `[head_fields]`, the counts first.
        passing: pools that were opened.
        shared: int64 `[shared]`, None where the shape has none.
        pools: int64 `[width]` by pool, of those that passed and no other.
    """

    survivors: int
    head: Integers
    passing: tuple[int, ...]
    shared: Integers | None = None
    pools: Mapping[int, Integers] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes over all of it (BLAKE3)."""
        count = len(self.passing)
        numbers = struct.pack(f">II{count}H", self.survivors, count, *self.passing)
        digest = blake3(b"secure-fl opened sums 2|" + numbers)
        for part in (self.head, self.shared, *(self.pools[pool] for pool in sorted(self.pools))):
            digest.update(struct.pack(">q", -1 if part is None else part.size))
            if part is not None:
                digest.update(part.astype("<i8").view(np.uint8).data)
        return digest.digest()


class SumOpener:
    """Opens one round's sums in two steps.

    Args:
        plan: the round's.
        cipher: what decrypts; None for `plain` and `masked`, whose sums are no secret of a key.
    """

    def __init__(self, plan: RoundPlan, cipher: HolderCipher | None) -> None:
        self._plan, self._cipher = plan, cipher
        self._head: Integers | None = None
        self._survivors, self._done = 0, False
        self.passing: tuple[int, ...] = ()

    @property
    def cipher(self) -> HolderCipher | None:
        """What decrypts sums; None where nothing is encrypted."""
        return self._cipher

    def open_counts(self, head: Integers, survivors: int) -> tuple[Integers, tuple[int, ...]]:
        """Head and passing pools, from the opened head. Raises RoundRefusedError: `out-of-turn` for
        a second opening; `too-few`.
        """
        if self._head is not None:
            raise _twice("counts")
        need(survivors, self._plan.survivors_needed, "survivors")
        self._head, self._survivors = head, survivors
        self.passing = self._plan.passing(head, survivors)
        return head, self.passing

    def named(self, body_hash: bytes) -> bytes:
        """32 bytes that name the sums that were sent, and what of them this opener opens."""
        assert self._head is not None
        passing = struct.pack(f">I{len(self.passing)}H", self._survivors, *self.passing)
        number = self._plan.round.to_bytes(8, "big")
        return commitment([self._plan.digest, number, self._head.tobytes(), passing, body_hash])

    def open_pools(self, bodies: Mapping[int, bytes]) -> Opened:
        """The shared block and the passing pools, by block number: these blocks, and no other.
        Raises RoundRefusedError: `out-of-turn`, or `below-minimum` where a block is there that did
        not pass.
        """
        if self._head is None or self._done:
            raise _twice("pools")
        shape, wanted = self._plan.shape, self._plan.shape.after_counts(self.passing)
        if not set(bodies) <= set(wanted):
            value = sorted(set(bodies) - set(wanted))
            raise RoundRefusedError(
                RoundReason.BELOW_MINIMUM, "it stays closed", "block", value, "leave it out"
            )
        if set(bodies) != set(wanted):
            remedy = f"send {wanted}"
            raise RoundRefusedError(
                RoundReason.OUT_OF_TURN, "a block is missing", "block", sorted(bodies), remedy
            )
        self._done = True
        sums = {
            block: open_sum(self._plan, self._cipher, block, body, self._survivors)
            for block, body in bodies.items()
        }
        pools = {pool: sums[shape.first_pool + pool] for pool in self.passing}
        shared = sums.get(1) if shape.shared else None
        return Opened(self._survivors, self._head, self.passing, shared, pools)


def by_block(wanted: Sequence[int], bodies: Sequence[bytes]) -> dict[int, bytes]:
    """Bodies by the block they must be, in order. Raises RoundRefusedError: `below-minimum` for
    more bodies than passed, `out-of-turn` for fewer.
    """
    if len(bodies) != len(wanted):
        more = len(bodies) > len(wanted)
        reason = RoundReason.BELOW_MINIMUM if more else RoundReason.OUT_OF_TURN
        problem, remedy = f"{len(wanted)} blocks may be opened", "send those that passed"
        raise RoundRefusedError(reason, problem, "blocks", len(bodies), remedy)
    return dict(zip(wanted, bodies, strict=True))


def _twice(what: str) -> RoundRefusedError:
    problem, remedy = "opened once a round, counts before pools", "begin another round"
    return RoundRefusedError(RoundReason.OUT_OF_TURN, problem, what, "(hidden)", remedy)
