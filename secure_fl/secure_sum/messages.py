"""The bodies inside a round's envelopes, typed, and why a party refuses to go on.

`decode` is strict: it refuses every spelling but the one that `encode` gives (see `framing`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import numpy as np

from secure_fl.crypto.envelope import Expected, Header, Seen, open_envelope
from secure_fl.crypto.public_keys import check_agreement_key
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.shares import SHARE_BYTES
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.framing import BodyReader, frames, malformed, position_list, sized

T = TypeVar("T")
MASK_KEY = 0xFFFF
"""In a revealed share's place for a block: the share is one of the owner's private mask key."""
_KEY_BYTES = 32
_PLACE = struct.Struct(">HH")
_ENTRY = _PLACE.size + SHARE_BYTES


class RoundReason(StrEnum):
    """Why a party refuses to go on, beside `refusals.Reason`; stable words."""

    SURVIVORS_SWITCHED = "survivors-switched"
    BOTH_KINDS = "both-kinds-of-shares"
    BELOW_MINIMUM = "below-minimum"
    TOO_FEW = "too-few"
    NOT_AGREED = "not-agreed"
    FORKED = "forked"
    ALREADY_BEGUN = "already-begun"
    ALREADY_OPENED = "already-opened"
    OUT_OF_TURN = "out-of-turn"
    STILL_MASKED = "still-masked"
    BOXES_CLOSED = "boxes-closed"
    FALSE_SHARES = "false-shares"
    NOT_PROVED = "not-proved"


class RoundRefusedError(SecureSumError):
    """A step of the round that a party refuses.

    Attributes:
        reason: why, in one stable word.
        blamed: clients whose messages made the round fail, as far as they can be told; the next
            attempt does without them.
    """

    def __init__(
        self,
        reason: RoundReason,
        problem: str,
        *,
        field: str,
        value: object,
        remedy: str,
        blamed: Sequence[str] = (),
    ) -> None:
        self.reason, self.blamed = reason, tuple(blamed)
        super().__init__(f"{problem} [{reason}]", field=field, value=value, remedy=remedy)


@dataclass(frozen=True)
class Advertise:
    """What a client makes known of its secrets of this round, 32 bytes each.

    Args:
        sealing: public key that seals shares; its private half is never reconstructed.
        masking: public key that makes pair seeds.
        commitment: to its self-mask seed of block 0, which is shown when the counts are proved.
    """

    sealing: bytes
    masking: bytes
    commitment: bytes

    def encode(self) -> bytes:
        """The keys and the commitment, one after the other: 96 bytes."""
        return self.sealing + self.masking + self.commitment

    @classmethod
    def decode(cls, data: bytes) -> Advertise:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        found = cls(reader.take(_KEY_BYTES), reader.take(_KEY_BYTES), reader.take(_KEY_BYTES))
        reader.end()
        if found.sealing == found.masking:
            raise malformed("one key for two purposes")
        return found

    def check(self, owner: str) -> None:
        """Refuse keys of low order, or in another spelling than their one.

        Raises:
            RefusedError: `wrong-key`.
        """
        for key in (self.sealing, self.masking):
            check_agreement_key(key, owner)


@dataclass(frozen=True)
class Boxes:
    """Sealed shares: from a client, by reader; from the server, by dealer, with the positions of
    all who dealt.
    """

    dealers: tuple[int, ...]
    boxes: tuple[tuple[int, bytes], ...] = field(repr=False)

    def encode(self) -> bytes:
        """Positions, then (position, box) in ascending order."""
        body = [
            position_list(self.dealers),
            position_list([position for position, _ in self.boxes]),
        ]
        return b"".join([*body, *(sized(box) for _, box in self.boxes)])

    @classmethod
    def decode(cls, data: bytes) -> Boxes:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        dealers, readers = reader.positions(), reader.positions()
        found = cls(dealers, tuple((position, reader.sized()) for position in readers))
        reader.end()
        return found


@dataclass(frozen=True)
class Dealers:
    """From a client: those whose boxes do not open for it. From the server: those who stay."""

    positions: tuple[int, ...]

    def encode(self) -> bytes:
        """The positions, behind their number."""
        return position_list(self.positions)

    @classmethod
    def decode(cls, data: bytes) -> Dealers:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        found = cls(reader.positions())
        reader.end()
        return found


@dataclass(frozen=True)
class Survivors:
    """U, and the 32-byte view that it makes together with round, plan, keys and dealers."""

    view: bytes
    survivors: tuple[int, ...]

    def encode(self) -> bytes:
        """The view, then the positions."""
        return self.view + position_list(self.survivors)

    @classmethod
    def decode(cls, data: bytes) -> Survivors:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        found = cls(reader.take(32), reader.positions())
        reader.end()
        return found


@dataclass(frozen=True)
class Agreement:
    """What a survivor signs, once a round: the view and how many survive in it."""

    view: bytes
    survivors: int

    def encode(self) -> bytes:
        """The view, then the number in two bytes: 34 bytes."""
        return self.view + self.survivors.to_bytes(2, "big")

    @classmethod
    def decode(cls, data: bytes) -> Agreement:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        found = cls(reader.take(32), reader.number(2))
        reader.end()
        return found


@dataclass(frozen=True)
class OpenRequest:
    """The server asks for shares, and says of whom and why: signatures, an encrypted sum of counts,
    or a signed opening of it.
    """

    view: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    evidence: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """The view, both sets of positions, then the evidence."""
        return (
            self.view
            + position_list(self.survivors)
            + position_list(self.dropped)
            + frames(self.evidence)
        )

    @classmethod
    def decode(cls, data: bytes) -> OpenRequest:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        view, survivors, dropped = reader.take(32), reader.positions(), reader.positions()
        return cls(view, survivors, dropped, tuple(reader.frames()))


@dataclass(frozen=True)
class CountProof:
    """Everything that shows an opened head to be the sum of the survivors' own.

    Args:
        heads: each survivor's signed envelope of block 0.
        seeds: each survivor's self-mask seed of block 0, 32 bytes; empty without masks.
        mask_keys: each dropped client's private mask key, 32 bytes.
    """

    heads: tuple[bytes, ...] = field(repr=False)
    seeds: tuple[bytes, ...] = field(default=(), repr=False)
    mask_keys: tuple[bytes, ...] = field(default=(), repr=False)

    def evidence(self) -> tuple[bytes, ...]:
        """The proof as the parts that a request carries for evidence."""
        return (*self.heads, b"".join(self.seeds), b"".join(self.mask_keys))

    @classmethod
    def of(
        cls, evidence: Sequence[bytes], survivors: int, dropped: int, *, masked: bool
    ) -> CountProof:
        """The proof out of a request's evidence.

        Raises:
            RoundRefusedError: `not-proved` for more or fewer parts than there are clients.
        """
        sizes = [survivors * _KEY_BYTES, dropped * _KEY_BYTES] if masked else [0, 0]
        if len(evidence) != survivors + 2 or [len(part) for part in evidence[-2:]] != sizes:
            remedy = "send every survivor's signed block 0, and what takes its masks off"
            raise RoundRefusedError(
                RoundReason.NOT_PROVED,
                "no proof of the counts",
                field="evidence",
                value=len(evidence),
                remedy=remedy,
            )
        seeds, keys = (
            [part[at : at + _KEY_BYTES] for at in range(0, len(part), _KEY_BYTES)]
            for part in evidence[-2:]
        )
        return cls(tuple(evidence[:-2]), tuple(seeds), tuple(keys))


@dataclass(frozen=True)
class Revealed:
    """Shares that a client gives out: (block or `MASK_KEY`, owner's position, share); and the pools
    that it found to pass.
    """

    passing: tuple[int, ...]
    shares: tuple[tuple[int, int, bytes], ...] = field(repr=False)

    def encode(self) -> bytes:
        """The pools, then entries of 75 bytes: block, owner, share."""
        head = position_list(self.passing) + struct.pack(">I", len(self.shares))
        return head + b"".join(
            struct.pack(">HH", block, owner) + share for block, owner, share in self.shares
        )

    @classmethod
    def decode(cls, data: bytes) -> Revealed:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        passing, count = reader.positions(), reader.number(4)
        if reader.left != count * _ENTRY:
            raise malformed("another number of shares")
        body = reader.take(reader.left)
        shares = tuple(
            (*_PLACE.unpack_from(body, at), body[at + _PLACE.size : at + _ENTRY])
            for at in range(0, len(body), _ENTRY)
        )
        if len({entry[:2] for entry in shares}) != count:
            raise malformed("a share twice")
        return cls(passing, shares)


@dataclass(frozen=True)
class Counts:
    """The opened head and the pools that pass, as whoever opened it signs them."""

    view: bytes
    head: Integers
    passing: tuple[int, ...]

    def encode(self) -> bytes:
        """The view, the fields as int64, then the pools."""
        return (
            self.view
            + struct.pack(">I", self.head.size)
            + self.head.astype(">i8").tobytes()
            + position_list(self.passing)
        )

    @classmethod
    def decode(cls, data: bytes) -> Counts:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        view, fields = reader.take(32), reader.number(4)
        head = np.frombuffer(reader.take(8 * fields), ">i8").astype(np.int64)
        found = cls(view, head, reader.positions())
        reader.end()
        return found


def accept(
    data: bytes,
    roster: Roster,
    expected: Expected,
    seen: Seen,
    parse: Callable[[bytes], T],
    *,
    chunk: int = 0,
) -> tuple[Header, T]:
    """Open an envelope, refuse repetition, parse its body; only a message that passes all of it
    takes its place in `seen`.

    Raises:
        RefusedError: any of the envelope's reasons, or those of the body.
    """
    header, body = open_envelope(data, roster, expected, seen)
    try:
        if header.chunk == chunk:
            return header, parse(body)
        problem, remedy = f"chunk {chunk} is expected", "send chunks in order"
        raise RefusedError(
            Reason.WRONG_CHUNK, problem, field="chunk", value=header.chunk, remedy=remedy
        )
    except RefusedError:
        seen.forget(header)
        raise
