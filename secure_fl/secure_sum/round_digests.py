"""What clients tell each other of the sums that they opened, and how a server shows itself that sent them different ones."""

from __future__ import annotations

from dataclasses import dataclass

from secure_fl.secure_sum.envelope import Phase, open_head, read_header
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_plan import RoundPlan

_DIGEST = 32


@dataclass(frozen=True)
class Applied:
    """What a client found in the sums, and which sums: 32 bytes over what it opened, and the signed head of what the server sent it."""

    digest: bytes
    sums: bytes

    def encode(self) -> bytes:
        """Digest, then head."""
        return self.digest + self.sums

    @classmethod
    def decode(cls, data: bytes) -> Applied:
        """The inverse.

        Raises:
            RefusedError: `truncated`.
        """
        if len(data) < _DIGEST:
            raise RefusedError(Reason.TRUNCATED, "shorter than a digest", field="body", value=len(data), remedy="send it as it was written")
        return cls(data[:_DIGEST], data[_DIGEST:])


def forks(plan: RoundPlan, mine: bytes, theirs: bytes) -> bool:
    """Whether the server signed two different messages with sums, by the heads of both; a head that it did not sign says nothing."""
    expected = plan.expect(Phase.APPLY, "server", sender=plan.server, chunks=2)
    try:
        return mine != theirs and open_head(theirs, plan.roster, expected).body_hash != read_header(mine).body_hash
    except RefusedError:
        return False
