"""The bodies inside a round's envelopes: typed, of one spelling each, and of lengths that public
facts alone decide.

Numbers are big-endian. A list is its count, then its items; positions ascend strictly. Whatever
follows the last field is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, pairwise
from typing import Generic, TypeVar

import numpy as np

from secure_fl.crypto.envelope import Bytes, Expected, Header, Seen, open_envelope
from secure_fl.crypto.public_keys import check_agreement_key
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.shares import SHARE_BYTES
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import Integers

T = TypeVar("T")
MASK_KEY = 0xFFFF
"""In a revealed share's place for a block: the share is one of the owner's private mask key."""
_KEY_BYTES = 32
_COUNT, _LENGTH, _PLACE = struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">HH")
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
        """96 bytes."""
        return self.sealing + self.masking + self.commitment

    @classmethod
    def decode(cls, data: bytes) -> Advertise:
        """The inverse."""
        reader = _Reader(data)
        found = cls(reader.take(_KEY_BYTES), reader.take(_KEY_BYTES), reader.take(_KEY_BYTES))
        reader.end()
        if found.sealing == found.masking:
            raise _malformed("one key for two purposes")
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
        body = [_positions(self.dealers), _positions([position for position, _ in self.boxes])]
        return b"".join([*body, *(_sized(box) for _, box in self.boxes)])

    @classmethod
    def decode(cls, data: bytes) -> Boxes:
        """The inverse."""
        reader = _Reader(data)
        dealers, readers = reader.positions(), reader.positions()
        found = cls(dealers, tuple((position, reader.sized()) for position in readers))
        reader.end()
        return found


@dataclass(frozen=True)
class Dealers:
    """From a client: those whose boxes do not open for it. From the server: those who stay."""

    positions: tuple[int, ...]

    def encode(self) -> bytes:
        """Positions."""
        return _positions(self.positions)

    @classmethod
    def decode(cls, data: bytes) -> Dealers:
        """The inverse."""
        reader = _Reader(data)
        found = cls(reader.positions())
        reader.end()
        return found


@dataclass(frozen=True)
class Survivors:
    """U, and the 32-byte view that it makes together with round, plan, keys and dealers."""

    view: bytes
    survivors: tuple[int, ...]

    def encode(self) -> bytes:
        """View, then positions."""
        return self.view + _positions(self.survivors)

    @classmethod
    def decode(cls, data: bytes) -> Survivors:
        """The inverse."""
        reader = _Reader(data)
        found = cls(reader.take(32), reader.positions())
        reader.end()
        return found


@dataclass(frozen=True)
class Agreement:
    """What a survivor signs, once a round: the view and how many survive in it."""

    view: bytes
    survivors: int

    def encode(self) -> bytes:
        """34 bytes."""
        return self.view + self.survivors.to_bytes(2, "big")

    @classmethod
    def decode(cls, data: bytes) -> Agreement:
        """The inverse."""
        reader = _Reader(data)
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
        """View, both sets, evidence."""
        return (
            self.view
            + _positions(self.survivors)
            + _positions(self.dropped)
            + frames(self.evidence)
        )

    @classmethod
    def decode(cls, data: bytes) -> OpenRequest:
        """The inverse."""
        reader = _Reader(data)
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
        """As a request carries it."""
        return (*self.heads, b"".join(self.seeds), b"".join(self.mask_keys))

    @classmethod
    def of(
        cls, evidence: Sequence[bytes], survivors: int, dropped: int, *, masked: bool
    ) -> CountProof:
        """The inverse.

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
        """Pools, then entries of 75 bytes."""
        head = _positions(self.passing) + struct.pack(">I", len(self.shares))
        return head + b"".join(
            struct.pack(">HH", block, owner) + share for block, owner, share in self.shares
        )

    @classmethod
    def decode(cls, data: bytes) -> Revealed:
        """The inverse."""
        reader = _Reader(data)
        passing, count = reader.positions(), reader.number(4)
        if reader.left != count * _ENTRY:
            raise _malformed("another number of shares")
        body = reader.take(reader.left)
        shares = tuple(
            (*_PLACE.unpack_from(body, at), body[at + _PLACE.size : at + _ENTRY])
            for at in range(0, len(body), _ENTRY)
        )
        if len({entry[:2] for entry in shares}) != count:
            raise _malformed("a share twice")
        return cls(passing, shares)


@dataclass(frozen=True)
class Counts:
    """The opened head and the pools that pass, as whoever opened it signs them."""

    view: bytes
    head: Integers
    passing: tuple[int, ...]

    def encode(self) -> bytes:
        """View, int64 fields, pools."""
        return (
            self.view
            + struct.pack(">I", self.head.size)
            + self.head.astype(">i8").tobytes()
            + _positions(self.passing)
        )

    @classmethod
    def decode(cls, data: bytes) -> Counts:
        """The inverse."""
        reader = _Reader(data)
        view, fields = reader.take(32), reader.number(4)
        head = np.frombuffer(reader.take(8 * fields), ">i8").astype(np.int64)
        found = cls(view, head, reader.positions())
        reader.end()
        return found


def frames(items: Sequence[bytes]) -> bytes:
    """Several byte strings as one."""
    return b"".join(
        [
            _COUNT.pack(len(items)),
            *chain.from_iterable((_LENGTH.pack(len(item)), item) for item in items),
        ]
    )


def empty_frames(lengths: Sequence[int]) -> tuple[memoryview, list[memoryview]]:
    """(`frames` of items that are not there yet, the places where they go): for items too large to
    be copied.
    """
    data = np.empty(_COUNT.size + sum(_LENGTH.size + length for length in lengths), np.uint8).data
    _COUNT.pack_into(data, 0, len(lengths))
    start, places = _COUNT.size, []
    for length in lengths:
        _LENGTH.pack_into(data, start, length)
        start += _LENGTH.size + length
        places.append(data[start - length : start])
    return data, places


def unframe(data: Bytes, count: int | None = None) -> list[Bytes]:
    """The inverse of `frames`; views where `data` is one.

    Args:
        data: the bytes.
        count: how many items there must be, checked before any is looked at.

    Raises:
        RefusedError: `truncated` or `malformed`; `wrong-chunk` for another number of items.
    """
    return _Reader(data).frames(count)


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
    header, body = open_envelope(data, roster, expected)
    if header.chunk != chunk:
        raise RefusedError(
            Reason.WRONG_CHUNK,
            f"chunk {chunk} is expected",
            field="chunk",
            value=header.chunk,
            remedy="send chunks in order",
        )
    seen.check(header)
    message = parse(body)
    seen.record(header)
    return header, message


class _Reader(Generic[Bytes]):
    def __init__(self, data: Bytes) -> None:
        self._data: Bytes = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> Bytes:
        if count > self.left:
            raise RefusedError(
                Reason.TRUNCATED,
                "shorter than its fields",
                field="body",
                value=len(self._data),
                remedy="send it as it was written",
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def positions(self) -> tuple[int, ...]:
        count = self.number(2)
        found = struct.unpack(f">{count}H", self.take(2 * count))
        if any(low >= high for low, high in pairwise(found)):
            raise _malformed("positions do not ascend")
        return found

    def sized(self) -> Bytes:
        return self.take(self.number(4))

    def frames(self, expected: int | None = None) -> list[Bytes]:
        count = self.number(4)
        if expected not in (None, count):
            raise RefusedError(
                Reason.WRONG_CHUNK,
                f"{expected} parts are expected",
                field="message",
                value=count,
                remedy="send all of them, once",
            )
        if count * _LENGTH.size > self.left:
            raise _malformed("more items than bytes")
        found = [self.take(self.number(8)) for _ in range(count)]
        self.end()
        return found

    def end(self) -> None:
        if self.left:
            raise _malformed("bytes after the last field")


def _positions(positions: Sequence[int]) -> bytes:
    return struct.pack(f">H{len(positions)}H", len(positions), *positions)


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _malformed(problem: str) -> RefusedError:
    return RefusedError(
        Reason.MALFORMED,
        problem,
        field="body",
        value="(hidden)",
        remedy="send the message as it was written",
    )
