"""Messages as strangers and as members with a valid key would make them, from good ones.

A stranger changes bytes. A member signs: another body, with one field that is something else down
to messages in messages, or another header. Both draw from a message that belongs here now, and from
everything that was sent before, in this run and in another.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from secure_fl.crypto.envelope import Header, Phase, read_header, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.errors import SecureFLError
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import (
    Advertise,
    Agreement,
    Boxes,
    Counts,
    Dealers,
    OpenRequest,
    Revealed,
    Survivors,
)

_LENGTH_AT = 15
ODD: list[Any] = [
    None, True, -1, 0, 1 << 31, 1 << 32, 1 << 64, -(1 << 70), 0.5, 1e400, "", "x" * 5000, "\ud800",
    [], {}, [None], [0, 0], [-1, -1], ["client-0001"], ["client-0001"] * 2, {"a": 1}, "ab" * 32,
]  # fmt: skip
_FROM_CLIENT: dict[tuple[Phase, int], Any] = {
    (Phase.ADVERTISE, 0): Advertise,
    (Phase.SHARE, 0): Boxes,
    (Phase.SHARE, 1): Dealers,
    (Phase.AGREE, 0): Agreement,
    (Phase.OPEN_COUNTS, 0): Revealed,
    (Phase.OPEN_POOLS, 0): Revealed,
    (Phase.APPLY, 0): Applied,
}
_FROM_SERVER: dict[tuple[Phase, int], Any] = {
    (Phase.SHARE, 0): Boxes,
    (Phase.SHARE, 1): Dealers,
    (Phase.AGREE, 0): Survivors,
    (Phase.OPEN_COUNTS, 0): OpenRequest,
    (Phase.OPEN_POOLS, 0): OpenRequest,
}
_FROM_AUTHORITY: dict[tuple[Phase, int], Any] = {
    (Phase.OPEN_COUNTS, 0): Counts,
    (Phase.APPLY, 0): Applied,
}
BODIES = {"client": _FROM_CLIENT, "server": _FROM_SERVER, "authority": _FROM_AUTHORITY}
"""What the bodies of a sum's messages are, by their sender's role; the others are frames, or begin
with a head in JSON.
"""


@dataclass(frozen=True)
class Bad:
    """A message to try.

    Attributes:
        data: its bytes.
        right: whether its header and signer are right where it was made for, and its body is not.
    """

    data: bytes
    right: bool = False


# What nobody signed


def unsigned(now: bytes, seeds: list[bytes], coins: random.Random) -> bytes:
    """Bytes that nobody signed: a message with something changed, or none at all."""
    data = bytearray(now if coins.random() < 0.7 else coins.choice(seeds))
    how = coins.randrange(8)
    if how == 0:
        return coins.randbytes(coins.randrange(600))
    if how == 1:
        return bytes(data[: coins.randrange(len(data))])
    if how == 2:
        return bytes(data) + coins.randbytes(1 + coins.randrange(64))
    if how == 3:  # the head of one, the body of another
        other = coins.choice(seeds)
        return bytes(data[: coins.randrange(len(data))]) + other[coins.randrange(len(other)) :]
    if how == 4:  # a length that is declared, and not there
        start = coins.choice([0, 12])
        size = coins.choice([1 << 63, (1 << 64) - 1, 1 << 40, 1 << 31, coins.randrange(1 << 24)])
        data[start + _LENGTH_AT : start + _LENGTH_AT + 8] = size.to_bytes(8, "little")
        return bytes(data)
    if how == 5:  # the frame around an upload, or the header's numbers
        at = coins.randrange(24)
        data[at : at + 1] = coins.randbytes(1)
    for _ in range(coins.choice([1, 1, 2, 8])):
        at = coins.randrange(len(data))
        data[at] ^= 1 + coins.randrange(255)
    return bytes(data)


# What a member signed


@dataclass(frozen=True)
class Signers:
    """Members whose keys are at hand: whoever makes bad messages with them is one, or all."""

    people: Mapping[str, Identity]

    def bad(self, now: bytes, seeds: list[bytes], coins: random.Random) -> Bad:
        """The message that belongs here, or another, with a body or header that is not its own."""
        here = coins.random() < 0.75
        data = now if here else coins.choice(seeds)
        if coins.random() < 0.05:
            return Bad(coins.choice(seeds))  # as it was: replayed, for another, too late or early
        made, right = self._signed(data, coins)
        return Bad(made, here and right)

    def _signed(self, data: bytes, coins: random.Random) -> tuple[bytes, bool]:
        try:
            read_header(data)
        except SecureFLError:
            envelopes = [bytes(part) for part in unframe(memoryview(data))]
            if coins.random() < 0.2:
                return frames(_other_row(envelopes, coins)), True
            at = coins.randrange(len(envelopes))
            envelopes[at], right = self._one(envelopes[at], coins)
            return frames(envelopes), right
        return self._one(data, coins)

    def _one(self, data: bytes, coins: random.Random, depth: int = 0) -> tuple[bytes, bool]:
        header = read_header(data)
        body, who = data[len(data) - header.body_length :], self.people[header.sender]
        if coins.random() < 0.05:
            who = self.people[coins.choice(sorted(self.people))]
        changes = _other_header(header, coins) if coins.random() < 0.2 else {}
        if not changes or coins.random() < 0.3:
            body = self._other_body(header, body, who.role, coins, depth)
        fresh = replace(header, sender=who.name, body_length=0, body_hash=bytes(32), **changes)
        return sign_envelope(who, fresh, body), not changes and who.name == header.sender

    def _other_body(
        self, header: Header, body: bytes, role: str, coins: random.Random, depth: int
    ) -> bytes:
        if coins.random() < 0.2:
            return odd_bytes(body, coins)
        kind = BODIES.get(role, {}).get((header.phase, header.chunk))
        try:
            if kind is not None:
                return self._other_fields(kind.decode(body), coins, depth)
            if header.phase == Phase.PLAN:
                return odd_json(body, coins)
            if header.phase > Phase.HELLO:
                return self._other_post(body, coins, depth)
            return self._other_frames(body, coins, depth)
        except (SecureFLError, ValueError, OverflowError, TypeError, struct.error):
            return odd_bytes(body, coins)  # no message can be made of that value

    def _other_fields(self, message: Any, coins: random.Random, depth: int) -> bytes:
        name = coins.choice(fields(message)).name
        value = getattr(message, name)
        if name == "evidence" and value and coins.random() < 0.7:
            value = tuple(self._other_parts(list(value), coins, depth))
        else:
            value = other_value(value, coins)
        return bytes(replace(message, **{name: value}).encode())

    def _other_post(self, body: bytes, coins: random.Random, depth: int) -> bytes:
        size = int.from_bytes(body[:4], "big")
        head, rest = body[4 : 4 + size], body[4 + size :]
        if rest and coins.random() < 0.6:
            rest = self._other_frames(rest, coins, depth)
        else:
            head = odd_json(head, coins)
        return len(head).to_bytes(4, "big") + head + rest

    def _other_frames(self, body: bytes, coins: random.Random, depth: int) -> bytes:
        parts = [bytes(part) for part in unframe(memoryview(body))]
        return frames(self._other_parts(parts, coins, depth))

    def _other_parts(self, parts: list[bytes], coins: random.Random, depth: int) -> list[bytes]:
        """Others than these: one more or less, or one that its own sender signed otherwise."""
        if not parts or coins.random() < 0.3:
            return _other_row(parts, coins)
        at = coins.randrange(len(parts))
        try:
            read_header(parts[at])
            deeper = depth < 2
        except SecureFLError:
            deeper = False
        if deeper and coins.random() < 0.8:
            parts[at] = self._one(parts[at], coins, depth + 1)[0]
        elif parts[at][:4] and coins.random() < 0.5:
            parts[at] = self._other_frames(parts[at], coins, depth + 1)
        else:
            parts[at] = odd_bytes(parts[at], coins)
        return parts


def _other_header(header: Header, coins: random.Random) -> dict[str, Any]:
    near = [max(0, header.round - 1), header.round + 1]
    changes: dict[str, Any] = coins.choice([
        {"round": coins.choice([*near, 0, 7, (1 << 32) - 1])},
        {"phase": coins.choice(list(Phase))},
        {"pools": coins.randrange(4)},
        {"chunk": 0, "chunks": coins.choice([1, 2, 3])},
        {"key_fingerprint": coins.randbytes(32)},
        {"parameters": coins.choice(["no-plan", "x"])},
        {"roster_digest": coins.randbytes(32)},
    ])  # fmt: skip
    same = all(getattr(header, name) == value for name, value in changes.items())
    return {} if same else changes


def _other_row(parts: list[Any], coins: random.Random) -> list[Any]:
    """One less, one twice, two in each other's place, none."""
    how = coins.randrange(4) if parts else 3
    at = coins.randrange(len(parts)) if parts else 0
    if how == 0:
        return [*parts[:at], *parts[at + 1 :]]
    if how == 1:
        return [*parts[:at], parts[at], *parts[at:]]
    if how == 2:
        other = coins.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
        return parts
    return [] if parts else [b""]


def other_value(value: Any, coins: random.Random) -> Any:
    """Another value of the same type, most often close to it."""
    if isinstance(value, int):
        return coins.choice([0, 1, value + 1, abs(value - 1), 0xFFFF, 0xFFFE, 1 << 31])
    if isinstance(value, bytes):
        return odd_bytes(value, coins)
    if isinstance(value, np.ndarray):
        changed = value.copy()
        if changed.size:
            at = coins.randrange(changed.size)
            changed.flat[at] = coins.choice([0, -1, 3, 1 << 40, -(1 << 62), changed.flat[at] + 1])
        return changed if coins.random() < 0.8 else changed[:-1]
    if isinstance(value, tuple):
        parts = list(value)
        if parts and coins.random() < 0.6:
            at = coins.randrange(len(parts))
            parts[at] = other_value(parts[at], coins)
            return tuple(parts)
        if not parts or (isinstance(parts[0], int) and coins.random() < 0.5):
            return tuple(sorted({*parts, coins.choice([0, 1, 3, 7, 0xFFFF])}))
        return tuple(_other_row(parts, coins))
    return value


def odd_json(data: bytes, coins: random.Random) -> bytes:
    """JSON with one value that is something else, or that is no JSON any more."""
    how = coins.randrange(6)
    if how == 0:
        return b"[" * coins.choice([10, 5_000, 100_000])
    try:
        found = json.loads(data)
    except ValueError:
        return data
    if not isinstance(found, dict):
        return data
    inner = found
    while coins.random() < 0.6:
        below = [value for value in inner.values() if isinstance(value, dict) and value]
        if not below:
            break
        inner = coins.choice(below)
    if how == 1:
        inner[coins.choice(["", "x", "number"])] = 1
    elif inner:
        key = coins.choice(sorted(inner))
        if how == 2:
            del inner[key]
        else:
            inner[key] = coins.choice(ODD)
    text = json.dumps(found, sort_keys=coins.random() < 0.9, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def odd_bytes(data: bytes, coins: random.Random) -> bytes:
    """Other bytes: cut, longer, zeros, anything, or a few changed."""
    how, changed = coins.randrange(8), bytearray(data)
    if how == 0:
        return bytes(data[: coins.randrange(len(data) + 1)])
    if how == 1:
        return data + coins.randbytes(coins.randrange(1, 64))
    if how == 2:
        return coins.randbytes(coins.choice([len(data), coins.randrange(300)]))
    if how == 3:
        return bytes(len(data))
    for _ in range(coins.choice([1, 1, 4])):
        if changed:
            near = coins.random() < 0.5
            at = coins.randrange(min(len(changed), 64) if near else len(changed))
            changed[at] = coins.choice([0, 255, 128, changed[at] ^ 1, coins.randrange(256)])
    return bytes(changed)
