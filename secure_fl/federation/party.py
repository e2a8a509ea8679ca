"""What moves a federation: parties that take bytes and give bytes, and never share an object."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from secure_fl.crypto.identities import LONGEST_NAME
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import SecureFLError
from secure_fl.secure_sum.steps import Refusal, claimed

_MOST_REFUSALS = 64


@dataclass(frozen=True)
class Message:
    """Bytes for one party.

    Attributes:
        to: its name on the roster.
        data: one signed message; an upload is several in one frame.
    """

    to: str
    data: bytes | memoryview = field(repr=False)


class Party(Protocol):
    """A client, the server, or the authority.

    Attributes:
        name: on the roster.
        due: when `tick` is to be called at the latest, in seconds of the clock that `tick` is
            told; None where the party waits for messages alone.
    """

    name: str

    @property
    def over(self) -> bool:
        """Whether the federation has ended for this party."""
        ...

    @property
    def due(self) -> float | None:
        """When `tick` is to be called at the latest, if at all."""
        ...

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """Take one message, whatever its bytes, and give the answers. Nothing is raised.

        A message that is refused gives no answer, or a signed refusal.
        """
        ...

    def tick(self, now: float) -> list[Message]:
        """Tell the time: what was waited for until now has not come."""
        ...


class RefusalLog:
    """Messages that a party turned away: the first of them, and how many there were by reason.

    So whoever floods a party fills no memory.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.first: list[Refusal] = []
        self.counts = Counter[str]()

    def add(self, data: bytes | memoryview, error: SecureFLError) -> Refusal:
        """Record a message that was refused, by what it claims to be."""
        sender, phase = claimed(data)
        return self.note(sender, phase, reason_of(error), len(data))

    def note(self, sender: str, phase: str, reason: str, size: int = 0) -> Refusal:
        """Record a refusal."""
        refusal = Refusal(sender[:LONGEST_NAME], phase, reason, size, by=self._owner)
        self.counts[reason] += 1
        if len(self.first) < _MOST_REFUSALS:
            self.first.append(refusal)
        return refusal


def reason_of(error: SecureFLError) -> str:
    """The word by which records name an error; it stays the same from version to version."""
    return str(getattr(error, "reason", None) or _CODES.get(error.code, Reason.MALFORMED))


_CODES = {"privacy": Reason.OVER_BUDGET, "training": Reason.NO_ANSWER, "data": Reason.NO_ANSWER}
