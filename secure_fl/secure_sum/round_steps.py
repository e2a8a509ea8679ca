"""Steps of the server's side of a round, and what it keeps of a message: the record of a refusal, bytes for a recipient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import overload

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.envelope import Phase, read_header

_FIRST_ENVELOPE = 12
"""Bytes before the first envelope of an upload."""
_MOST_REFUSALS, _LONGEST_SENDER = 64, 64


class Step(IntEnum):
    """What the server is collecting."""

    ADVERTISE = 1
    SHARE = 2
    UPLOAD = 3
    AGREE = 4
    COUNT_SHARES = 5
    COUNTS = 6
    POOL_SHARES = 7
    POOLS = 8
    DIGESTS = 9
    DONE = 10


PHASES = {
    Step.ADVERTISE: Phase.ADVERTISE,
    Step.SHARE: Phase.SHARE,
    Step.UPLOAD: Phase.UPLOAD,
    Step.AGREE: Phase.AGREE,
    Step.COUNT_SHARES: Phase.OPEN_COUNTS,
    Step.COUNTS: Phase.OPEN_COUNTS,
    Step.POOL_SHARES: Phase.OPEN_POOLS,
    Step.POOLS: Phase.APPLY,
    Step.DIGESTS: Phase.APPLY,
    Step.DONE: Phase.APPLY,
}
"""The protocol's phase that each step belongs to."""


@dataclass(frozen=True)
class Refusal:
    """A message that was turned away; sender and phase are what it claimed, `?` where it could not be read.

    Args:
        sender: a name, not verified where the reason is about the signature.
        phase: of the protocol.
        reason: one stable word.
        size: bytes; 0 where nothing was sent.
        by: who turned it away.
    """

    sender: str
    phase: str
    reason: str
    size: int
    by: str = "server"


class Refusals(Sequence[Refusal]):
    """The first refusals of a round, and how many there were of each reason: whoever floods the server fills no memory."""

    def __init__(self) -> None:
        self._kept = list[Refusal]()
        self.counted = Counter[str]()

    def add(self, refusal: Refusal) -> None:
        """Count it, and keep it among the first."""
        self.counted[refusal.reason] += 1
        if len(self._kept) < _MOST_REFUSALS:
            self._kept.append(replace(refusal, sender=refusal.sender[:_LONGEST_SENDER]))

    @overload
    def __getitem__(self, index: int) -> Refusal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Refusal]: ...
    def __getitem__(self, index: int | slice) -> Refusal | list[Refusal]:
        return self._kept[index]

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True)
class Message:
    """Bytes for one party."""

    recipient: str
    data: bytes = field(repr=False)


def claimed(data: bytes | memoryview) -> tuple[str, str]:
    """Sender and phase as a message claims them, for the record; an upload is known by its first envelope. `?` where it cannot be read."""
    for start in (0, _FIRST_ENVELOPE):
        try:
            header = read_header(data[start : start + 2048])
        except SecureSumError:
            continue
        return header.sender, header.phase.name.lower()
    return "?", "?"
