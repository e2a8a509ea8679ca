"""What clients of one process need to find out only once, since each of them was shown the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from blake3 import blake3

T = TypeVar("T")


def question_of(data: bytes) -> bytes:
    """32 bytes that name a message, whole."""
    return blake3(data).digest()


@dataclass
class Verified:
    """What follows from messages that a server sends to everybody alike.

    n clients in one process would check n signatures each, open n lists and add n counts each. A
    client on a machine of its own has one of these to itself, and does all of that.

    Guarantee: everything is found by digests of the very bytes and of the facts that it follows
    from, so a client that is shown something else does its own work; what is refused is not kept,
    so each client refuses it by itself.
    Assumes: nobody asks here for what depends on a client's secrets, or was meant for one of them.
    """

    _found: dict[tuple[bytes, ...], Any] = field(default_factory=dict, repr=False)
    _told: tuple[tuple[bytes, ...], Any] = field(default=((), None), repr=False)
    _named: tuple[bytes, bytes] = field(default=(b"", b""), repr=False)

    def name_of(self, data: bytes) -> bytes:
        """`question_of`; not computed again as long as the same object is asked for."""
        known, name = self._named
        if known is not data or not name:
            self._named = data, question_of(data)
        return self._named[1]

    def once(self, name: tuple[bytes, ...], work: Callable[[], T]) -> T:
        """What `work` gives, made by the first who asks for that name: one kind of work, and
        digests of all that it depends on.
        """
        if name not in self._found:
            self._found[name] = work()
        found: T = self._found[name]
        return found

    def message(self, name: tuple[bytes, ...], work: Callable[[], T]) -> T:
        """As `once`, of the message that was opened last: the one before is forgotten."""
        if self._told[0] != name:
            self._told = name, work()
        found: T = self._told[1]
        return found
