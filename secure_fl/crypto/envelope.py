"""The signed envelope that every message travels in, and its strict parser.

    magic 4 | phase u8 | round u32 | pools u16 | chunk u16 | chunks u16 | body length u64
    | key fingerprint 32 | roster digest 32 | body BLAKE3 32
    | suite, parameters, federation, sender: u8 length and ASCII each | Ed25519 signature 64 | body

The signature covers all bytes before it, and through the hash and the length the body. Nothing in a
header depends on which pool a client chose.

Guarantee: a body that `open_envelope` returns was sent by the member named, for this federation,
roster, round, phase, chunk, suite, parameter set and key, and was not accepted before by the
same `Seen`.
Assumes: Ed25519 (EUF-CMA), SHA-256, BLAKE3; the roster is authentic.
Not covered: a sender that lies inside the body; who may read it; traffic analysis.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeVar

from blake3 import blake3

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureSumError

Bytes = TypeVar("Bytes", bytes, memoryview)
"""What is read is cut, not copied, where it is a view."""

_FIXED = struct.Struct("<4sBIHHHQ32s32s32s")
_MAGIC = b"SFE1"
_SIGNATURE = 64
_PURPOSE = b"envelope"
_PRINTABLE = re.compile("[!-~]{1,255}")
_FRAME = 12
"""Bytes before the first envelope of a message that is several in one frame."""
NO_KEY = bytes(32)
"""The key fingerprint of suites without homomorphic encryption."""


class Phase(IntEnum):
    """Steps of a round, and the ceremony before it; from 16 on, what is said around rounds."""

    KEYS = 0
    ADVERTISE = 1
    SHARE = 2
    UPLOAD = 3
    SUM = 4
    AGREE = 5
    OPEN_COUNTS = 6
    OPEN_POOLS = 7
    APPLY = 8
    HELLO = 16
    PLAN = 17
    JOIN = 18
    REFUSE = 19
    MAKE = 20
    SECRET = 21
    BEGIN = 22
    GIVE = 23
    PART = 24
    PARTS = 25
    RESULT = 26
    RESULTS = 27
    WANT = 28
    STATE = 29
    END = 30
    PREPARE = 31


_PHASES = frozenset(map(int, Phase))


@dataclass(frozen=True)
class Header:
    """What is signed besides the body.

    Args:
        suite: how the layers compose, e.g. `bfv+masked`.
        parameters: `ParameterSet.identifier`, or what the suite uses in its place.
        federation: its name.
        round: counted from 0.
        phase: see `Phase`.
        pools: K.
        sender: a name on the roster.
        key_fingerprint: 32 bytes of the encryption key in force, `NO_KEY` without one.
        roster_digest: 32 bytes, hash(R).
        chunk: which of `chunks`, from 0.
        chunks: how many envelopes this sender's message has.
        body_length: bytes; filled in by `sign_envelope`.
        body_hash: BLAKE3, seven times as fast as BLAKE2b on one thread; filled in by
            `sign_envelope`.
    """

    suite: str
    parameters: str
    federation: str
    round: int
    phase: Phase
    pools: int
    sender: str
    key_fingerprint: bytes
    roster_digest: bytes
    chunk: int = 0
    chunks: int = 1
    body_length: int = 0
    body_hash: bytes = bytes(32)

    def encode(self) -> bytes:
        """The signed bytes. Raises SecureSumError: a number or text does not fit its field."""
        place = (int(self.phase), self.round, self.pools, self.chunk, self.chunks)
        numbers = (*place, self.body_length)
        digests = (self.key_fingerprint, self.roster_digest, self.body_hash)
        texts = (self.suite, self.parameters, self.federation, self.sender)
        plain = all(_PRINTABLE.fullmatch(text) for text in texts)
        try:
            fixed = _FIXED.pack(_MAGIC, *numbers, *digests)
        except struct.error:
            plain = False
        if not plain or any(len(digest) != 32 for digest in digests) or self.chunk >= self.chunks:
            remedy = (
                "counts below 65536, texts of 1 to 255 printable ASCII characters, digests of 32 "
                "bytes, chunk below chunks"
            )
            raise SecureSumError("a field does not fit", "header", numbers, remedy)
        return fixed + b"".join(bytes([len(text)]) + text.encode("ascii") for text in texts)


@dataclass(frozen=True)
class Expected:
    """What a receiver waits for; every field is compared.

    Args:
        body_length: bytes the body must have, None where it varies.
        sender: the only sender welcome, None for anyone of `role`.
        role: the role the sender must have, None for any.
        chunks: how many envelopes the message has.
    """

    suite: str
    parameters: str
    federation: str
    round: int
    phase: Phase
    pools: int
    key_fingerprint: bytes
    chunks: int = 1
    body_length: int | None = None
    sender: str | None = None
    role: str | None = "client"


@dataclass
class Seen:
    """What was accepted already, by sender, round, phase and chunk."""

    digests: dict[tuple[str, int, int, int], bytes] = field(default_factory=dict)

    def check(self, header: Header) -> None:
        """Refuse a second message in one place: `replayed` where it is equal, or `duplicate`."""
        earlier = self.digests.get(_place(header))
        if earlier is None:
            return
        where = (header.sender, header.round, header.phase.name, header.chunk)
        if earlier == _identity_of(header):
            raise _refuse(Reason.REPLAYED, "accepted already", "message", where)
        problem = "another message of this sender is in its place"
        raise _refuse(Reason.DUPLICATE, problem, "message", where)

    def record(self, header: Header) -> None:
        """Remember a message that was accepted."""
        self.digests[_place(header)] = _identity_of(header)

    def forget(self, header: Header) -> None:
        """Give back the place of a message whose body was refused."""
        del self.digests[_place(header)]


def sign_envelope(identity: Identity, header: Header, body: bytes) -> bytes:
    """The bytes of a message.

    Args:
        identity: the sender; its name must be the header's.
        header: without length and hash, which are filled in.
        body: what is sent.

    Raises:
        SecureSumError: a field does not fit, or the name is another's.
    """
    return _signed_head(identity, header, body) + body


def head_bytes(header: Header) -> int:
    """Bytes before the body, signature included; they do not depend on the body."""
    return len(header.encode()) + _SIGNATURE


def sign_in_place(identity: Identity, header: Header, message: memoryview) -> None:
    """`sign_envelope`, in place: the body lies `head_bytes` behind the start of `message`."""
    start = head_bytes(header)
    message[:start] = _signed_head(identity, header, message[start:])


def read_header(data: bytes | memoryview) -> Header:
    """The header as it claims to be: nothing is checked but its form. For routing and records only.
    Raises RefusedError: `truncated` or `malformed`.
    """
    return _parse(memoryview(data))[0]


def body_of(data: bytes) -> bytes:
    """What an envelope carries, as `read_header`: nothing is checked."""
    return data[len(data) - read_header(data).body_length :]


def claimed_header(
    data: bytes | memoryview, read: Callable[[bytes | memoryview], Header] = read_header
) -> Header:
    """The header of a message, or of the first of several envelopes in one frame.

    Raises:
        RefusedError: `truncated` or `malformed`.
    """
    view = memoryview(data)
    return read(view if view[: len(_MAGIC)] == _MAGIC else view[_FRAME:])


def open_envelope(
    data: Bytes, roster: Roster, expected: Expected, seen: Seen | None = None
) -> tuple[Header, Bytes]:
    """Check everything, then give out header and body.

    Order: form, sender, signature, then what the signed header says, then length and hash of the
    body, then repetition.

    Args:
        data: what arrived.
        roster: in force at the receiver.
        expected: what it waits for.
        seen: what it accepted before; the message is added to it.

    Raises:
        RefusedError: with one of `Reason`'s words. Nothing else is raised, whatever the bytes.
    """
    header, head, signature, body = _parse(data)
    if header.federation != expected.federation:
        problem = f"this is {expected.federation}"
        raise _refuse(Reason.WRONG_FEDERATION, problem, "federation", header.federation)
    roster.member(header.sender).verify(_PURPOSE, head, signature)
    _check_claims(header, roster, expected)
    _check_length(len(body), header, expected)
    if seen is not None:
        seen.check(header)
    if _hashed(body) != header.body_hash:
        raise _refuse(Reason.BIT_FLIPPED, "the body is not what was signed", "body", len(body))
    if seen is not None:
        seen.record(header)
    return header, body


def open_head(data: bytes, roster: Roster, expected: Expected) -> Header:
    """The header of a message whose body is elsewhere, from the `head_bytes` before it: what its
    sender signed of it. Raises RefusedError: as `open_envelope`, but for what is about the body.
    """
    header, head, signature, rest = _parse(data)
    if rest:
        raise _refuse(Reason.WRONG_LENGTH, "more than a head", "message", len(data))
    roster.member(header.sender).verify(_PURPOSE, head, signature)
    _check_claims(header, roster, expected)
    return header


def signed_header(data: bytes | memoryview, roster: Roster) -> Header:
    """The header, once its signature is checked, and nothing else: it shows who signed a message
    of which round, whenever that was. What follows the signature is not looked at.

    Raises:
        RefusedError: not a head that a member of this federation signed.
    """
    header, head, signature, _ = _parse(memoryview(data))
    if header.federation != roster.federation:
        problem = f"this is {roster.federation}"
        raise _refuse(Reason.WRONG_FEDERATION, problem, "federation", header.federation)
    roster.member(header.sender).verify(_PURPOSE, head, signature)
    return header


def _signed_head(identity: Identity, header: Header, body: bytes | memoryview) -> bytes:
    if header.sender != identity.name:
        remedy = f"sign as {identity.name}"
        raise SecureSumError("names another sender", "header", header.sender, remedy)
    head = replace(header, body_length=len(body), body_hash=_hashed(body)).encode()
    return head + identity.sign(_PURPOSE, head)


def _parse(data: Bytes) -> tuple[Header, bytes, bytes, Bytes]:
    if len(data) < _FIXED.size:
        raise _refuse(Reason.TRUNCATED, "shorter than its head", "message", len(data))
    magic, phase, round_number, pools, chunk, chunks, length, key, roster, body_hash = (
        _FIXED.unpack_from(data)
    )
    if magic != _MAGIC or phase not in _PHASES or chunk >= chunks:
        raise _refuse(Reason.MALFORMED, "not an envelope of version 1", "message", len(data))
    texts, start = [], _FIXED.size
    for _ in range(4):
        text, start = _text(data, start)
        texts.append(text)
    end = start + _SIGNATURE
    if len(data) < end:
        raise _refuse(Reason.TRUNCATED, "shorter than its signature", "message", len(data))
    suite, parameters, federation, sender = texts
    place = (round_number, Phase(phase), pools)
    header = Header(
        suite, parameters, federation, *place, sender, key, roster, chunk, chunks, length, body_hash
    )
    return header, bytes(data[:start]), bytes(data[start:end]), data[end:]


def _text(data: bytes | memoryview, start: int) -> tuple[str, int]:
    if start >= len(data) or start + 1 + data[start] > len(data):
        raise _refuse(Reason.TRUNCATED, "shorter than its head", "message", len(data))
    raw = bytes(data[start + 1 : start + 1 + data[start]])
    text = raw.decode("latin-1")
    if not _PRINTABLE.fullmatch(text):
        problem = "a text is empty or not printable ASCII"
        raise _refuse(Reason.MALFORMED, problem, "header", len(raw))
    return text, start + 1 + len(raw)


def _check_claims(header: Header, roster: Roster, expected: Expected) -> None:
    """What the signed header says of its message, against what the receiver waits for."""
    if header.roster_digest != roster.digest:
        problem = f"revision {roster.revision} is in force"
        raise _refuse(Reason.WRONG_ROSTER, problem, "roster", header.roster_digest.hex()[:16])
    _check_sender(header.sender, roster.member(header.sender).role, expected)
    if header.round != expected.round:
        reason = Reason.STALE if header.round < expected.round else Reason.FUTURE
        raise _refuse(reason, f"round {expected.round} is running", "round", header.round)
    wanted: tuple[tuple[Reason, str, object, object], ...] = (
        (Reason.WRONG_SUITE, "suite", header.suite, expected.suite),
        (Reason.WRONG_PARAMETERS, "parameters", header.parameters, expected.parameters),
        (Reason.WRONG_PHASE, "phase", header.phase.name, expected.phase.name),
        (Reason.WRONG_POOLS, "pools", header.pools, expected.pools),
        (Reason.WRONG_CHUNK, "chunks", header.chunks, expected.chunks),
    )
    for reason, name, found, right in wanted:
        if found != right:
            raise _refuse(reason, f"{right} is in force", name, found)
    if header.key_fingerprint != expected.key_fingerprint:
        problem, key = f"{expected.key_fingerprint.hex()[:16]} is in force", header.key_fingerprint
        raise _refuse(Reason.RE_KEYED, problem, "key fingerprint", key.hex()[:16])


def _check_sender(name: str, role: str, expected: Expected) -> None:
    if expected.sender is not None and name != expected.sender:
        raise _refuse(Reason.WRONG_ROLE, f"only {expected.sender} may send this", "sender", name)
    if expected.role is not None and role != expected.role:
        problem = f"only a {expected.role} may send this"
        raise _refuse(Reason.WRONG_ROLE, problem, "sender", f"{name}, a {role}")


def _check_length(found: int, header: Header, expected: Expected) -> None:
    if found != header.body_length:
        reason = Reason.TRUNCATED if found < header.body_length else Reason.WRONG_LENGTH
        raise _refuse(reason, f"the body has {header.body_length} bytes", "body", found)
    if expected.body_length is not None and found != expected.body_length:
        problem = f"{expected.body_length} bytes are expected"
        raise _refuse(Reason.WRONG_LENGTH, problem, "body", found)


def _place(header: Header) -> tuple[str, int, int, int]:
    return header.sender, header.round, int(header.phase), header.chunk


def _identity_of(header: Header) -> bytes:
    return hashlib.sha256(header.encode()).digest()


def _refuse(reason: Reason, problem: str, name: str, value: object) -> RefusedError:
    remedies = {
        Reason.STALE: "send what belongs to the running round; a late client takes part in the "
        "next one",
        Reason.RE_KEYED: "fetch the key of this epoch from the ceremony",
        Reason.WRONG_ROSTER: "fetch the roster in force",
    }
    remedy = remedies.get(reason, "send the message as it was written, once")
    return RefusedError(reason, problem, name, value, remedy)


def _hashed(body: bytes | memoryview) -> bytes:
    return blake3(body).digest()
