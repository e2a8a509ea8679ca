"""What a server has of a federation: its plan, who is there, how far it is, what each was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureFLError, SecureSumError
from secure_fl.federation.parties.attempt import Attempt, Deadlines, Journals
from secure_fl.federation.parties.claims import Claim, handed_on
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.parties.party import RefusalLog
from secure_fl.federation.parties.server_desks import KeyDesk, StateDesk
from secure_fl.federation.parties.server_record import Journal, Stage
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Schedule
from secure_fl.federation.state import State
from secure_fl.federation.succession import begins_anew
from secure_fl.federation.wire import Wire
from secure_fl.secure_sum.block_codec import ServerCipher


@dataclass
class Progress:
    """How far the federation is.

    Attributes:
        place: where the program is.
        state: digest of the state there.
        number: of the attempt that was called last.
        used: the last number that an attempt was called or prepared under.
        vain: the last number that one was prepared under in vain.
        attempt: at the round of that place, from 1.
        without: clients that made an attempt before fail.
        parts: opened sums of groups, sealed.
        sealers: who sealed each.
        doubts: who refused the parts, and whose box it blames.
        results: what clients say follows from them.
        asked: who is asked for either.
    """

    place: Place
    state: bytes
    number: int = -1
    used: int = -1
    vain: int = -1
    attempt: int = 1
    without: frozenset[str] = frozenset()
    parts: dict[int, bytes] = field(default_factory=dict)
    sealers: dict[int, str] = field(default_factory=dict)
    doubts: dict[str, frozenset[str]] = field(default_factory=dict)
    results: dict[str, tuple[Claim, bytes]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)


class ServerBase:
    """What `FederationServer` stands on; made as that is."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        plan: bytes,
        schedule: Schedule,
        *,
        start: Place | None = None,
        number: int = 0,
        deadlines: Deadlines | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.name, self._plan_data, self.plan = identity.name, plan, Plan.open(plan, roster)
        self._wire, self._schedule = Wire(identity, roster), schedule
        self._wire.plan = self.plan.digest.hex()
        self._deadlines, self._journal = deadlines or Deadlines(), journal or Journal()
        self._keys = KeyDesk(self._wire, self.plan)
        self._states = StateDesk(self._wire, handed_on(self.plan))
        self._cipher: ServerCipher | None = None
        self._members: dict[str, bytes] = {}
        """Who has joined, and the transcript's head that each was shown last."""
        self._before, self._called = dict[str, bytes](), dict[str, bytes]()
        """The head that each had before it was called, and that call."""
        self._told: dict[str, dict[tuple[int, str], bytes | memoryview]] = {}
        """What each was told last, by number and sum, of the round that runs or is prepared."""
        self._declined, self._silent = set[str](), dict[str, int]()
        start = start or self.plan.begins
        self._progress = Progress(start, self.plan.start, number - 1, number - 1)
        self._attempt: Attempt | None = None
        self._ahead: Attempt | None = None
        """The attempt whose set-up goes on while another runs."""
        self._now, self._until = 0.0, self._deadlines.join
        self.stage, self.failed = Stage.JOIN, None
        self._reader = _reader(self._wire, self.plan)
        """Opens sealed states, where the plan publishes the models."""
        self.models: State | None = None
        """The state that is reached, where the plan publishes the models; else never any."""
        self.refusals = RefusalLog(self.name)
        self.said: list[Mapping[str, Any]] = []
        """Signed refusals of members, the first of them."""

    revoked: Callable[[], frozenset[str]] = frozenset
    """Says who can come no more, as its site was revoked; asked at every tick."""
    _revoked: frozenset[str] = frozenset()
    closing: Callable[[], bool] = bool
    """Says whether the federation is to end at the next place from which another can go on; asked
    after every round."""
    _journals: Journals | None = None
    hindrance: SecureSumError | None = None
    """Why the attempt before failed, where the round is tried again."""
    failed: SecureFLError | None
    """Why the federation ended before its program did."""

    @property
    def over(self) -> bool:
        """Whether no round is left, or the federation has failed."""
        return self.stage == Stage.OVER

    @property
    def _closes(self) -> bool:
        """Whether it ends here, and others could go on."""
        return self.closing() and begins_anew(self._schedule, self._progress.place)

    @property
    def place(self) -> Place:
        """Where the program is."""
        return self._progress.place

    @property
    def number(self) -> int:
        """Of the attempt that was called last; one less than the first's before it."""
        return self._progress.number

    @property
    def attempt(self) -> int:
        """At the round of that place, from 1."""
        return self._progress.attempt

    @property
    def members(self) -> frozenset[str]:
        """Who has joined."""
        return frozenset(self._members)

    @property
    def _following(self) -> int:
        """A number that no call has, prepared or not."""
        return max(self._progress.number, self._progress.used) + 1

    @property
    def state(self) -> bytes:
        """Digest of the state at that place, as most appliers signed it."""
        return self._progress.state

    @property
    def due(self) -> float | None:
        """When the next wait ends."""
        waits = [] if self.over else [self._until]
        waits += [self._states.until] if self._states.until is not None else []
        return min(waits, default=None)


def _reader(wire: Wire, plan: Plan) -> Keyring | None:
    return Keyring(wire, plan, Shared()) if plan.publish_models else None
