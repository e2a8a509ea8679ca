"""What a client and an authority have in common, as the server meets them.

They say that they are there until they are shown a plan, take one message after the other, and put
what they refuse on record.
"""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.errors import FileError, SecureFLError
from secure_fl.federation.parties.party import Message, RefusalLog, typed_files
from secure_fl.federation.wire import Wire

PATIENCE = 30.0
"""Seconds after which a participant says again that it is there, until it is shown a plan."""


class Participant:
    """A party that answers a server.

    Args:
        identity: whose it is.
        roster: in force.
    """

    def __init__(self, identity: Identity, roster: Roster) -> None:
        self.name = identity.name
        self._wire, self._server = Wire(identity, roster), roster.names("server")[0]
        self._signed = b""
        """The plan that was accepted, as its coordinator signed it."""
        self._due: float | None = 0.0
        self._hello = 0.0
        """When it may say again that it is there."""
        self.refusals = RefusalLog(identity.name)

    @property
    def due(self) -> float | None:
        """When to say again that it is there."""
        return self._due

    def tick(self, now: float) -> list[Message]:
        """Say that it is there, until it is shown a plan; also after what it could not write."""
        if self._due is None or now < self._due:
            return []
        self._due = self._hello = now + PATIENCE
        return self._messages([self._wire.sign(Phase.HELLO, {})])

    def back(self) -> None:
        """The way to the server was lost and is there again: say so at the next tick, and be told
        again what was said meanwhile.
        """
        self._due = 0.0

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One message, and the answers to it."""
        try:
            with typed_files():
                return self._messages(self._take(data))
        except SecureFLError as error:
            if isinstance(error, FileError):
                self._due = self._hello
            return self._messages(self._refuse(data, error))

    def _messages(self, sent: Sequence[bytes | memoryview]) -> list[Message]:
        return [Message(self._server, data) for data in sent]

    def _take(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        """The answers to one message; what is raised refuses it."""
        raise NotImplementedError

    def _keep(self) -> None:
        """Write down how far it is, before what follows from that is sent; nothing in memory."""

    def _refuse(self, data: bytes | memoryview, error: SecureFLError) -> list[bytes]:
        """Put a refusal on record; what is said of it, which is nothing unless one does."""
        self.refusals.add(data, error)
        return []
