"""Messages around rounds: signed envelopes whose body is a head in canonical JSON, then raw bytes.

    body = length of the head u32 | head, canonical JSON with exactly the fields of its kind | rest

The header's suite is the version of this file and its parameters are the plan's digest, so that a
message made under another plan is refused. `HELLO`, `PLAN` and `REFUSE` may come from or go to
somebody who has no plan yet, and name the one they speak of inside.

Guarantee: what `Wire.open` returns was signed by the member named, for this federation, roster and
plan, and is no longer than public facts allow; whatever the bytes, nothing but `RefusedError` is
raised, and nothing is parsed before length and signature are checked.
Assumes: what the envelope assumes.
Not covered: repetition; who receives a message sees to that by its round's number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from secure_fl.crypto.envelope import (
    NO_KEY,
    Expected,
    Header,
    Phase,
    claimed_header,
    head_bytes,
    open_envelope,
    read_header,
    sign_envelope,
)
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import canonical, fields, malformed, parse_object
from secure_fl.federation.place import Place
from secure_fl.secure_sum.sizes import check_size

SUITE = "parties-1"
NO_PLAN = "no-plan"
_LENGTH = struct.Struct(">I")
_PLANLESS = (Phase.HELLO, Phase.REFUSE)
_FACTS: dict[Phase, dict[str, type]] = {
    Phase.HELLO: {},
    Phase.JOIN: {"place": list, "state": str, "head": str},
    Phase.REFUSE: {"plan": str, "about": str, "reason": str, "problem": str, "blamed": list},
    Phase.MAKE: {"grant": int, "secret": int},
    Phase.SECRET: {"sealed": dict},
    Phase.BEGIN: {"place": list, "attempt": int, "left_out": list, "state": str, "head": str},
    Phase.GIVE: {"place": list, "part": int},
    Phase.PART: {"part": int},
    Phase.PARTS: {"parts": list, "left_out": list},
    Phase.RESULT: {"place": list, "state": str},
    Phase.RESULTS: {},
    Phase.WANT: {"place": list},
    Phase.STATE: {"place": list, "state": str, "call": dict},
    Phase.END: {"place": list, "state": str, "head": str, "reason": str},
    Phase.PREPARE: {"place": list, "left_out": list},
}
"""What the head of each kind holds; `PLAN` and `KEYS` have bodies of their own."""


@dataclass(frozen=True)
class Post:
    """A message that was opened.

    Attributes:
        header: what was signed of it.
        facts: the head's values, of the types that its kind has.
        rest: what follows the head.
    """

    header: Header
    facts: Mapping[str, Any]
    rest: bytes = field(repr=False)

    @property
    def sender(self) -> str:
        """The name of the party that signed the message."""
        return self.header.sender

    @property
    def place(self) -> Place:
        """The place in the program that the message is about. Raises RefusedError: `malformed`."""
        return read_place(self.facts["place"])

    def names(self, key: str) -> tuple[str, ...]:
        """A list of names, ascending. Raises RefusedError: `malformed`."""
        found = self.facts[key]
        if not all(isinstance(name, str) for name in found) or found != sorted(set(found)):
            raise malformed("head", f"{key} are names, ascending")
        return tuple(found)


class Wire:
    """Signs and opens one party's messages around rounds.

    Args:
        identity: who signs.
        roster: in force.

    Attributes:
        plan: digest of the plan in hex, once there is one.
    """

    def __init__(self, identity: Identity, roster: Roster) -> None:
        self.identity, self.roster, self.plan = identity, roster, NO_PLAN

    def sign(
        self, phase: Phase, facts: Mapping[str, Any], rest: bytes = b"", *, number: int = 0
    ) -> bytes:
        """A message, from the values of its head and what follows them."""
        head = canonical(dict(facts))
        plan = NO_PLAN if phase in _PLANLESS else self.plan
        header = plain_header(self.identity.name, self.roster, phase, plan, number)
        return sign_envelope(self.identity, header, _LENGTH.pack(len(head)) + head + rest)

    def open(
        self, data: bytes | memoryview, *, most: int, role: str, sender: str | None = None
    ) -> Post:
        """A message of the kind that its header names. Raises RefusedError: any of the envelope's
        reasons, or `malformed`.

        Args:
            data: what arrived.
            most: bytes that it may have.
            role: of its sender.
            sender: the only one who may send it; None for everybody of that role.
        """
        return open_post(data, self.roster, self.plan, most=most, role=role, sender=sender)


def open_post(
    data: bytes | memoryview,
    roster: Roster,
    plan: str,
    *,
    most: int,
    role: str,
    sender: str | None = None,
) -> Post:
    """`Wire.open` for whoever reads only; `plan` is the digest of the plan in hex."""
    check_size(data, most)
    claimed = read_header(data)
    place = (roster.federation, claimed.round, claimed.phase, 0, NO_KEY)
    plan = NO_PLAN if claimed.phase in _PLANLESS else plan
    expected = Expected(SUITE, plan, *place, sender=sender, role=role)
    header, body = open_envelope(bytes(data), roster, expected)
    if len(body) < _LENGTH.size:
        raise malformed("message", "shorter than the length of its head")
    end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    if end > len(body) or header.phase not in _FACTS:
        raise malformed("message", "the head is longer than its body, or of no kind")
    head = parse_object(body[_LENGTH.size : end], "message")
    return Post(header, fields(head, "message", _FACTS[header.phase]), body[end:])


def lines_in(data: bytes | memoryview) -> int:
    """Bytes after the head of a message's body: of a call, the transcript's lines."""
    start = head_bytes(read_header(data[:4096]))
    length = _LENGTH.unpack_from(data, start)[0]
    return max(0, len(data) - start - _LENGTH.size - int(length))


def plain_header(name: str, roster: Roster, phase: Phase, plan: str, number: int = 0) -> Header:
    """The header of a message around rounds."""
    return Header(SUITE, plan, roster.federation, number, phase, 0, name, NO_KEY, roster.digest)


def read_place(value: Any) -> Place:
    """The place that `shown` wrote as JSON values. Raises RefusedError: `malformed`."""
    if not isinstance(value, list) or [type(number) for number in value] != [int, int]:
        raise malformed("head", "a place is two whole numbers")
    return Place(*value)


def shown(place: Place) -> list[int]:
    """A place as JSON values: the step's number and the round's."""
    return [place.step, place.round]


def route(
    data: bytes | memoryview, read: Callable[[bytes | memoryview], Header] = read_header
) -> Header:
    """The header that a message claims; of an upload, its first envelope's. Raises RefusedError:
    `truncated` or `malformed`.

    Args:
        data: what arrived.
        read: gives the header of an envelope's beginning, or raises.
    """
    return claimed_header(data, read)
