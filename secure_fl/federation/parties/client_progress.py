"""How far a client of a federation is."""

from __future__ import annotations

from dataclasses import dataclass, field

from secure_fl.federation.parties.ahead import RoundAhead
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.parties.client_round import ClientRound
from secure_fl.federation.wire import Post


@dataclass
class ClientProgress:
    """How far a client is."""

    head: bytes
    last: tuple[int, bytes] = (-1, b"")
    """The last call that was taken: its number, and the hash of its body."""
    late: Post | None = field(default=None, repr=False)
    """A call that waits for the state of its place."""
    begun: Call | None = None
    round: ClientRound | None = field(default=None, repr=False)
    ahead: RoundAhead = field(default_factory=RoundAhead, repr=False)
    over: bool = False
    gap: bool = False
    """Whether lines of the transcript could not be written."""
