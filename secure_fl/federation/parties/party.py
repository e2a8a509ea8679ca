"""What moves a federation: parties that take bytes and give bytes, and never share an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from secure_fl.crypto.identities import LONGEST_NAME
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import PrivacyError, SecureFLError, SecureSumError
from secure_fl.files import file_error
from secure_fl.secure_sum.steps import Refusal, claimed

_MOST_REFUSALS = 64


ANYBODYS = frozenset(
    {
        Reason.MALFORMED,
        Reason.TRUNCATED,
        Reason.WRONG_LENGTH,
        Reason.BIT_FLIPPED,
        Reason.WRONG_SIGNATURE,
        Reason.UNKNOWN_CLIENT,
        Reason.WRONG_ROLE,
        Reason.WRONG_FEDERATION,
        Reason.WRONG_PHASE,
        Reason.STALE,
        Reason.FUTURE,
        Reason.REPLAYED,
        Reason.DUPLICATE,
    }
)
"""Reasons that bytes of anybody can cause: they are recorded, and nothing is answered."""


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

    @property
    def due(self) -> float | None:
        """When `tick` is to be called at the latest, if at all."""

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """Take one message, whatever its bytes, and give the answers. No bytes raise anything.

        A message that is refused gives no answer, or a signed refusal. Who cannot write down what
        an answer follows from does not give it; a client or an authority says later that it is
        there, and is told again what it was told last.

        Raises:
            FileError: a server cannot write its journal; its process ends, and sends nothing.
        """

    def tick(self, now: float) -> list[Message]:
        """Tell the time: what was waited for until now has not come."""


class RefusalLog:
    """Messages that a party turned away: the first of them, and how many there were by reason. So
    whoever floods a party fills no memory.
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


@contextmanager
def typed_files() -> Iterator[None]:
    """Give a refusal of the operating system as a typed error, whoever ran into it: a store, a
    journal, or what a site brings along. Raises FileError: instead of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        path = Path(str(error.filename or "a file of this party"))
        raise file_error(error, path, "read or written") from None


def failure_word(error: SecureFLError | None) -> str:
    """Why a federation ended early, in one stable word; empty where it did not."""
    return "" if error is None else str(getattr(error, "reason", error.code))


def reason_of(error: SecureFLError) -> str:
    """The word by which records name an error; it stays the same from version to version."""
    found: object = getattr(error, "reason", None)
    if found is None and isinstance(error, SecureSumError):
        found = Reason.MALFORMED
    if found is None:
        found = Reason.OVER_BUDGET if isinstance(error, PrivacyError) else Reason.NO_ANSWER
    return str(found)
