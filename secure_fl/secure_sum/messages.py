"""The bodies inside a round's envelopes, typed, and why a party refuses to go on. `decode` is
strict: it refuses every spelling but the one that `encode` gives (see `framing`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

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
        field: str,
        value: object,
        remedy: str,
        blamed: Sequence[str] = (),
    ) -> None:
        self.reason, self.blamed = reason, tuple(blamed)
        super().__init__(f"{problem} [{reason}]", field, value, remedy)


class _Kind(NamedTuple):
    """How a field of a body is written, and read again."""

    write: Callable[[Any], bytes]
    read: Callable[[BodyReader[bytes]], Any]


def _written(head: Integers) -> bytes:
    return struct.pack(">I", head.size) + head.astype(">i8").tobytes()


def _read(reader: BodyReader[bytes]) -> Integers:
    return np.frombuffer(reader.take(8 * reader.number(4)), ">i8").astype(np.int64)


_RAW = _Kind(bytes, lambda reader: reader.take(_KEY_BYTES))
"""A key, a digest or a view: 32 bytes."""
_POSITIONS = _Kind(position_list, BodyReader.positions)
_NUMBER = _Kind(lambda number: int(number).to_bytes(2, "big"), lambda reader: reader.number(2))
_FRAMES = _Kind(frames, lambda reader: tuple(reader.frames()))
_INTEGERS = _Kind(_written, _read)


class _Body:
    """A body of fields one after the other, each of its kind."""

    kinds: ClassVar[tuple[_Kind, ...]]

    def encode(self) -> bytes:
        """The fields, one after the other."""
        values = [getattr(self, each.name) for each in fields(self)]  # type: ignore[arg-type]
        return b"".join(kind.write(value) for kind, value in zip(self.kinds, values, strict=True))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        found = cls(*(kind.read(reader) for kind in cls.kinds))
        reader.end()
        return found


@dataclass(frozen=True)
class Advertise(_Body):
    """What a client makes known of its secrets of this round, 32 bytes each. Raises RefusedError:
    `malformed` where one key serves two purposes.

    Args:
        sealing: public key that seals shares; its private half is never reconstructed.
        masking: public key that makes pair seeds.
        commitment: to its self-mask seed of block 0, which is shown when the counts are proved.
    """

    kinds = (_RAW, _RAW, _RAW)
    sealing: bytes
    masking: bytes
    commitment: bytes

    def __post_init__(self) -> None:
        if self.sealing == self.masking:
            raise malformed("one key for two purposes")

    def check(self, owner: str) -> None:
        """Refuse keys of low order, or in another spelling than their one: `wrong-key`."""
        for key in (self.sealing, self.masking):
            check_agreement_key(key, owner)


@dataclass(frozen=True)
class Boxes:
    """Sealed shares by reader, from a client; by dealer, with all dealers, from the server."""

    dealers: tuple[int, ...]
    boxes: tuple[tuple[int, bytes], ...] = field(repr=False)

    def encode(self) -> bytes:
        """Positions, then (position, box) in ascending order."""
        dealers = position_list(self.dealers)
        readers = position_list([position for position, _ in self.boxes])
        return b"".join([dealers, readers, *(sized(box) for _, box in self.boxes)])

    @classmethod
    def decode(cls, data: bytes) -> Boxes:
        """The message that `encode` gives these bytes for; no other bytes are taken."""
        reader = BodyReader(data)
        dealers, readers = reader.positions(), reader.positions()
        found = cls(dealers, tuple(zip(readers, reader.sized(len(readers)), strict=True)))
        reader.end()
        return found


@dataclass(frozen=True)
class Dealers(_Body):
    """From a client: those whose boxes do not open for it. From the server: those who stay."""

    kinds = (_POSITIONS,)
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Survivors(_Body):
    """U, and the 32-byte view that it makes together with round, plan, keys and dealers."""

    kinds = (_RAW, _POSITIONS)
    view: bytes
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class Agreement(_Body):
    """What a survivor signs, once a round: the view, how many survive in it, and the history that
    it was shown, 66 bytes.
    """

    kinds = (_RAW, _NUMBER, _RAW)
    view: bytes
    survivors: int
    history: bytes = bytes(32)


@dataclass(frozen=True)
class OpenRequest(_Body):
    """A request for shares: of whom, and why (signatures, sum of counts, or a signed opening)."""

    kinds = (_RAW, _POSITIONS, _POSITIONS, _FRAMES)
    view: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    evidence: tuple[bytes, ...] = field(repr=False)


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
        """The proof out of a request's evidence. Raises RoundRefusedError: `not-proved` for more or
        fewer parts than there are clients.
        """
        sizes = [survivors * _KEY_BYTES, dropped * _KEY_BYTES] if masked else [0, 0]
        if len(evidence) != survivors + 2 or [len(part) for part in evidence[-2:]] != sizes:
            remedy = "send every survivor's signed block 0, and what takes its masks off"
            raise RoundRefusedError(
                RoundReason.NOT_PROVED, "no proof of the counts", "evidence", len(evidence), remedy
            )
        seeds, keys = (
            [part[at : at + _KEY_BYTES] for at in range(0, len(part), _KEY_BYTES)]
            for part in evidence[-2:]
        )
        return cls(tuple(evidence[:-2]), tuple(seeds), tuple(keys))


@dataclass(frozen=True)
class Revealed:
    """A client's shares: (block or `MASK_KEY`, owner, share), and pools that it found to pass."""

    passing: tuple[int, ...]
    shares: tuple[tuple[int, int, bytes], ...] = field(repr=False)

    def encode(self) -> bytes:
        """The pools, then entries of 75 bytes: block, owner, share."""
        head = position_list(self.passing) + struct.pack(">I", len(self.shares))
        return head + b"".join(_PLACE.pack(*place) + share for *place, share in self.shares)

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
class Counts(_Body):
    """The opened head and the pools that pass, as whoever opened it signs them."""

    kinds = (_RAW, _INTEGERS, _POSITIONS)
    view: bytes
    head: Integers
    passing: tuple[int, ...]


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
    takes its place in `seen`. Raises RefusedError: any of the envelope's reasons, or those of the
    body.
    """
    header, body = open_envelope(data, roster, expected, seen)
    try:
        if header.chunk == chunk:
            return header, parse(body)
        problem, remedy = f"chunk {chunk} is expected", "send chunks in order"
        raise RefusedError(Reason.WRONG_CHUNK, problem, "chunk", header.chunk, remedy)
    except RefusedError:
        seen.forget(header)
        raise
