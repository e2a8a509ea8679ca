"""All parties of a federation in this process: for simulations, tests and small pilots.

They exchange the bytes that they would send over a network, and nothing else; an experimenter
stands beside them and reads off what no party would be told.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.engines.queue import Here, Queue
from secure_fl.errors import SecureFLError
from secure_fl.federation.client import Client
from secure_fl.federation.following import Follower
from secure_fl.federation.observe import Seen
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import SumForm
from secure_fl.federation.recorder import FEDERATION, Recorder
from secure_fl.federation.state import State
from secure_fl.federation.step_program import StepProgram
from secure_fl.federation.summing import Cost, Summed
from secure_fl.federation.wire import lines_in, route
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.store import MemoryStore

Replied = Callable[[int, int, int], None]
"""Told after each answer whose it is, how many there are, and how many will be."""
_LARGEST_STATE = 1 << 34


@dataclass
class Watched:
    """A program as an experimenter watches it.

    Attributes:
        first: the state that this process goes on from.
        opened: what was opened last.
        error: why the next state could not be made.
    """

    program: StepProgram
    first: State
    opened: Summed | None = None
    error: SecureFLError | None = None

    def start(self) -> State:
        """Where this process goes on."""
        return self.first

    def form(self, place: Place) -> SumForm:
        """As the program's."""
        return self.program.form(place)

    def done(self, place: Place) -> bool:
        """As the program's."""
        return self.program.done(place)

    def apply(self, state: State, opened: Summed) -> State:
        """As the program's."""
        self.opened = opened
        try:
            return self.program.apply(state, opened)
        except SecureFLError as error:
            self.error = error
            raise


@dataclass
class Told:
    """What is read off the clients in one attempt, and what their answers cost.

    Attributes:
        number: of the attempt.
        seen: by client, in the order in which they answered.
        error: why the first that could not answer could not.
        seconds: that answers took.
        called: clients that were called.
    """

    number: int = -1
    seen: dict[int, Seen] = field(default_factory=dict)
    error: SecureFLError | None = None
    seconds: float = 0.0
    called: int = 0


class WatchedAnswers:
    """One client's answers, read off as they are made."""

    def __init__(
        self, client: Client, number: int, told: Told, running: Callable[[], int], replied: Replied
    ) -> None:
        """`running`: number of the attempt under way."""
        self._client, self._number, self._told = client, number, told
        self._running, self._replied = running, replied

    def releases(self, state: State, position: int) -> Sequence[Release]:
        """None: the run's own gate admits a whole round before it is called."""
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        """The client's summand."""
        told, started = self._told, time.perf_counter()
        if told.number != self._running():
            told.number, told.seen = self._running(), {}
        try:
            answer = self._client.answered(state, position)
        except SecureFLError as error:
            told.error = told.error or error
            raise
        told.seconds += time.perf_counter() - started
        told.seen[self._number] = answer.seen
        self._replied(self._number, len(told.seen), told.called)
        return answer.blocks


class LocalParties:
    """A federation in this process, round by round.

    Args:
        program: of the federation.
        state: from which it goes on.
        clients: what answers.
        replied: told of each answer.
        recorder: writes the transcript, which clients follow.
    """

    def __init__(
        self,
        program: StepProgram,
        state: State,
        clients: Sequence[Client],
        replied: Replied,
        recorder: Recorder,
    ) -> None:
        config = program.blueprint.config
        self._watched, self._shared, self.told = Watched(program, state), Shared(), Told()
        self._recorder, self._head = recorder, recorder.head
        people = {name: Identity.generate(name) for name in recorder.clients}
        others = {role: Identity.generate(role, role) for role in _ROLES}
        everyone = tuple(one.member for one in (*others.values(), *people.values()))
        unsigned = Roster(FEDERATION, everyone, config.security.rotation_rounds)
        coordinator = others["coordinator"]
        named = unsigned.sign(coordinator)
        roster = Roster.open(named, coordinator.member)
        plan = self._plan(roster)
        signed = plan.sign(coordinator, roster)
        recorder.planned(plan, roster, (coordinator.card(), named, signed))
        answers = [
            WatchedAnswers(client, number, self.told, lambda: self.server.number, replied)
            for number, client in enumerate(clients)
        ]
        self._clients = [
            self._client(identity, roster, answer)
            for identity, answer in zip(people.values(), answers, strict=True)
        ]
        watched, journal = self._watched, replace(recorder.journal, write=self._write)
        self.server = FederationServer(
            others["server"],
            roster,
            signed,
            watched,
            start=state.place,
            number=recorder.number,
            journal=journal,
        )
        parties: list[FederationClient | FederationAuthority] = [*self._clients]
        if self.server.plan.by_authority:
            identity, shared = others["authority"], self._shared
            parties.append(FederationAuthority(identity, roster, lambda _: watched, shared=shared))
        self._queue = Queue([Here([self.server]), Here(parties)], "server", tap=self._tap)
        self._bytes, self._refused = Counter[tuple[str, int]](), list[str]()
        self._called: dict[Place, set[int]] = {}
        self._at = state.place
        self._numbers = set[int]()
        """Of the attempts at the place under way."""

    def run(self, state: State, called: int) -> tuple[State, Summed]:
        """One round: the state after it, and what was opened.

        Args:
            state: at the place where the parties are.
            called: clients that will be asked.

        Raises:
            SecureFLError: a client could not answer, or the round failed.
        """
        self.told.__dict__.update(Told(called=called).__dict__)
        place = self._at = state.place
        self._numbers = self._called.pop(place, set())
        self._queue.run(until=lambda: self.server.place != place or self._error is not None)
        if self._error is not None:
            raise self.server.hindrance or self._error
        if self.server.failed is not None:
            raise self.server.failed
        opened, after = self._watched.opened, self._shared.known(self.server.state)
        assert opened is not None
        assert after is not None
        return after, opened

    @property
    def _error(self) -> SecureFLError | None:
        """Why a client of this process could not go on: it ends a simulation."""
        return self.told.error or self._watched.error

    def cost(self, seconds: float) -> Cost:
        """Of the round that was run last, of which `seconds` have passed.

        The transcript's lines that calls bring along are not counted: how many there are depends
        on when a run was stopped.
        """
        down, up = (
            sum(self._bytes.pop((way, number), 0) for number in self._numbers)
            for way in ("down", "up")
        )
        refused = tuple(self._refused)
        self._refused.clear()
        return Cost(down, up, seconds - self.told.seconds, refused)

    def _plan(self, roster: Roster) -> Plan:
        blueprint = self._watched.program.blueprint
        config = blueprint.config
        tensors = blueprint.make_encoder(0).state_dict().items()
        layout = repr([(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors])
        return Plan(
            config.model_dump(mode="json"),
            blueprint.shape,
            blueprint.classes,
            roster.names("client"),
            roster.digest,
            hashlib.sha256(layout.encode()).digest(),
            self._watched.first.digest,
            _LARGEST_STATE,
            "server",
            "authority" if config.security.key_holder == "authority" else "",
            largest=blueprint.largest,
        )

    def _client(
        self, identity: Identity, roster: Roster, answers: WatchedAnswers
    ) -> FederationClient:
        follow = Follower(self._shared.followed, self._head)
        site = Site(lambda _: (self._watched, answers), follow=follow)
        store = MemoryStore(bytes_too=False)
        return FederationClient(identity, roster, site, store=store, shared=self._shared)

    def _write(self, kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes]) -> None:
        if kind == "round":
            here = Place(*facts["place"])
            running = self._numbers if here == self._at else self._called.setdefault(here, set())
            running.add(facts["round"])
        if kind == "refused":
            self._refused.append(f"{facts['sender']} {facts['phase']}: {facts['reason']}")
        self._recorder.journal.write(kind, facts, evidence)

    def _tap(self, sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        header = route(data)
        if header.phase not in _ONCE:
            lines = lines_in(data) if header.phase in (Phase.BEGIN, Phase.END) else 0
            bare = header.phase in _UNNUMBERED and not header.round
            number = max(self._numbers, default=header.round) if bare else header.round
            self._bytes["up" if to == "server" else "down", number] += len(data) - lines
        return data


_ONCE = (Phase.HELLO, Phase.PLAN, Phase.JOIN, Phase.MAKE, Phase.KEYS, Phase.SECRET)
"""Phases that belong to no round; a run that was stopped has them again when it goes on."""
_UNNUMBERED = (Phase.STATE, Phase.WANT, Phase.GIVE)
"""Phases about the models of a place, without the number of an attempt: they belong to the one
under way.
"""
_ROLES = ("coordinator", "server", "authority")
