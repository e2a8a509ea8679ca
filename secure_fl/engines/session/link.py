"""What stands between a party and the machines of the others: bytes go out, events come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from secure_fl.federation.parties.party import Message, Party

CLOSED = "closed"
"""The reason of a machine that has ended its work and says so."""


@dataclass(frozen=True)
class Arrived:
    """A message for a party of this process.

    Attributes:
        to: the party's name.
        data: what was sent; nobody has looked at it.
    """

    to: str
    data: bytes | memoryview = field(repr=False)


@dataclass(frozen=True)
class Back:
    """A machine can be reached, for the first time or again; what was said meanwhile may be lost.

    Attributes:
        peer: a site's name, or the server's.
    """

    peer: str


@dataclass(frozen=True)
class Lost:
    """A machine can no longer be reached.

    Attributes:
        peer: a site's name, or the server's.
        reason: a word for it, that names no address and no file.
    """

    peer: str
    reason: str


Event = Arrived | Back | Lost


class Link(Protocol):
    """Carries messages between this process and others."""

    @property
    def peers(self) -> frozenset[str]:
        """Machines that can be reached now."""

    def send(self, sender: str, message: Message) -> None:
        """Hand a message over. What is for nobody who can be reached is dropped: whoever comes back
        says that it is there, and is told again. Nothing is raised for a slow or lost reader.

        Args:
            sender: name of the party of this process that says it.
            message: for a party elsewhere.
        """

    def receive(self, seconds: float) -> Event | None:
        """The next event; None where there is none for so long. By asking, a caller says that it is
        done with the event before, whose memory is free again.
        """

    def close(self) -> None:
        """End every connection, after what was handed over has left, as far as that is quick."""


class Watch:
    """Is told what a driver does; this one takes no notice. Public facts only: names, phases, sizes
    and times, never a body.
    """

    def turned(self) -> None:
        """The driver looks for what is next: at least twice a second, but for the time that a party
        takes for one message.
        """

    def back(self, peer: str) -> None:
        """A machine can be reached."""

    def lost(self, peer: str, reason: str) -> None:
        """A machine can no longer be reached."""

    def received(self, to: str, data: bytes | memoryview, seconds: float) -> None:
        """A message was taken by a party, which took so long; only its header is to be read."""

    def sent(self, sender: str, message: Message) -> None:
        """A message was handed over."""

    def stepped(self, party: Party) -> None:
        """A party has taken a message, or was told the time."""


class Watches(Watch):
    """Several, which are told the same."""

    def __init__(self, *watches: Watch) -> None:
        self._watches = watches

    def turned(self) -> None:
        for each in self._watches:
            each.turned()

    def back(self, peer: str) -> None:
        for each in self._watches:
            each.back(peer)

    def lost(self, peer: str, reason: str) -> None:
        for each in self._watches:
            each.lost(peer, reason)

    def received(self, to: str, data: bytes | memoryview, seconds: float) -> None:
        for each in self._watches:
            each.received(to, data, seconds)

    def sent(self, sender: str, message: Message) -> None:
        for each in self._watches:
            each.sent(sender, message)

    def stepped(self, party: Party) -> None:
        for each in self._watches:
            each.stepped(party)
