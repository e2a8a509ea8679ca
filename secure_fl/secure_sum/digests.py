"""What appliers tell each other of a round's sums, and how a server that forks them shows."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from secure_fl.crypto.envelope import Phase, Seen, open_head, read_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum.messages import accept
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan

_DIGEST = 32
_PLACE = struct.Struct(">II")
APPLIED_BYTES = 2 * _DIGEST + _PLACE.size
"""Of an answer, before the head of the sums that it is about."""

Next = tuple[bytes, tuple[int, int]]
"""Digest of the state that follows from the opened sums, 32 bytes, and its place: step, round."""
ApplySums = Callable[[Opened], Next]
"""Makes the next state of what was opened, before anything is said of it."""
Claim = tuple[bytes, bytes, tuple[int, int]]
"""Digest of what was opened, digest of the next state, and its place."""
NOTHING: Next = (bytes(_DIGEST), (0, 0))
"""For a caller that keeps no state."""


@dataclass(frozen=True)
class Applied:
    """What an applier found in the sums, what it made of them, and which sums they were.

    Args:
        digest: 32 bytes over what it opened.
        state: 32 bytes over the next state; zeros where there is none.
        place: step and round of the next state.
        sums: the signed head of the server's message with the sums; empty under `authority`.
    """

    digest: bytes
    state: bytes = bytes(_DIGEST)
    place: tuple[int, int] = (0, 0)
    sums: bytes = b""

    @property
    def claim(self) -> Claim:
        """What all honest appliers of the same sums have in common."""
        return self.digest, self.state, self.place

    def encode(self) -> bytes:
        """Digests and place, 72 bytes, then head."""
        return self.digest + self.state + _PLACE.pack(*self.place) + self.sums

    @classmethod
    def decode(cls, data: bytes) -> Applied:
        """The inverse. Raises RefusedError: `truncated`."""
        if len(data) < APPLIED_BYTES:
            problem, remedy = "shorter than its digests", "send it as it was written"
            raise RefusedError(Reason.TRUNCATED, problem, "body", len(data), remedy)
        digest, state = data[:_DIGEST], data[_DIGEST : 2 * _DIGEST]
        step, round_number = _PLACE.unpack_from(data, 2 * _DIGEST)
        return cls(digest, state, (step, round_number), data[APPLIED_BYTES:])


def forks(plan: RoundPlan, mine: bytes, theirs: bytes) -> bool:
    """Whether the server signed two messages with sums, by their heads; others say nothing."""
    expected = plan.expect(Phase.APPLY, "server", sender=plan.server, chunks=2)
    try:
        other = mine != theirs and open_head(theirs, plan.roster, expected).body_hash
        return other is not False and other != read_header(mine).body_hash
    except RefusedError:
        return False


@dataclass(frozen=True)
class Claims:
    """What appliers signed.

    Args:
        count: how many there are.
        by_claim: the signed messages of those who found the same, in their order.
        sums: the heads of all the sums that they speak of, each with the first who does.
    """

    count: int
    by_claim: Mapping[Claim, tuple[bytes, ...]]
    sums: Mapping[bytes, str]


def applied_by(plan: RoundPlan, envelopes: Sequence[bytes]) -> Claims:
    """What each of these clients signed that it opened. Raises RefusedError: a message that is not
    a signed digest of this round.
    """
    seen, claims, sums = Seen(), dict[Claim, tuple[bytes, ...]](), dict[bytes, str]()
    for data in envelopes:
        expected = plan.expect(Phase.APPLY, "client")
        header, applied = accept(data, plan.roster, expected, seen, Applied.decode)
        claims[applied.claim] = (*claims.get(applied.claim, ()), data)
        sums.setdefault(applied.sums, header.sender)
    return Claims(len(envelopes), claims, sums)
