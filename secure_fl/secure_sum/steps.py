"""Steps of a round at the server and at a client, and what the server keeps of a message: the
record of a refusal, bytes for a recipient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from secure_fl.crypto.envelope import Phase, claimed_header
from secure_fl.errors import SecureSumError


class Step(IntEnum):
    """Steps of a round at the server: what it is collecting."""

    ADVERTISE = 1
    SHARE = 2
    SETTLE = 3
    UPLOAD = 4
    AGREE = 5
    COUNT_SHARES = 6
    COUNTS = 7
    POOL_SHARES = 8
    POOLS = 9
    DIGESTS = 10
    DONE = 11


class ClientStep(IntEnum):
    """Steps of a round at a client: what it has done last."""

    NEW = 0
    ADVERTISED = 1
    SHARED = 2
    DEALT = 3
    READY = 4
    UPLOADED = 5
    AGREED = 6
    COUNTED = 7
    OPENED = 8
    APPLIED = 9
    LEFT = 10


PHASES = {
    Step.ADVERTISE: Phase.ADVERTISE,
    Step.SHARE: Phase.SHARE,
    Step.SETTLE: Phase.SHARE,
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
    """A message that was turned away; sender and phase are what it claimed, `?` where it could not
    be read.

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


@dataclass(frozen=True)
class Message:
    """What the server sends: bytes for one party, by name."""

    recipient: str
    data: bytes | memoryview = field(repr=False)


def claimed(data: bytes | memoryview) -> tuple[str, str]:
    """Sender and phase as a message claims them, for the record; `?` where it cannot be read."""
    try:
        header = claimed_header(data)
    except SecureSumError:
        return "?", "?"
    return header.sender, header.phase.name.lower()
