"""All parties of a federation in one run: for simulations, tests and small pilots.

They exchange the bytes that they would send over a network, and nothing else; an experimenter
stands beside them and reads off what no party would be told.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.engines.queue import Here, Host, Queue
from secure_fl.engines.recorder import FEDERATION, Recorder, client_name
from secure_fl.errors import SecureFLError, TrainingError
from secure_fl.federation.client import Client
from secure_fl.federation.observe import Seen
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Answers, Program, SumForm
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.summing import Cost, Summed
from secure_fl.federation.transcript.following import Follower
from secure_fl.federation.wire import lines_in, route
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.store import MemoryStore

Replied = Callable[[int, int, int], None]
"""Told after each answer whose it is, how many there are, and how many will be."""
_LARGEST_STATE = 1 << 34


class ProgramBeside:
    """A program that begins where a run goes on; who watches adds `apply`."""

    def __init__(self, program: StepProgram, first: State) -> None:
        self.program, self.first = program, first

    def start(self) -> State:
        """Where the run goes on."""
        return self.first

    def form(self, place: Place) -> SumForm:
        return self.program.form(place)

    def done(self, place: Place) -> bool:
        return self.program.done(place)

    def following(self, place: Place) -> Place:
        return self.program.following(place)


class AnswersBeside(ABC):
    """One client's answers, read off as they are made."""

    def __init__(self, client: Client, number: int) -> None:
        self._client, self._number = client, number

    def releases(self, state: State, position: int) -> Sequence[Release]:
        """None: the run's own gate admits a whole round before it is called."""
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        """The client's summand."""
        started = time.perf_counter()
        try:
            answer = self._client.answered(state, position)
        except Exception as error:
            self._failed(error)
            raise
        self._answered(answer.seen, time.perf_counter() - started)
        return answer.blocks

    @abstractmethod
    def _answered(self, seen: Seen, seconds: float) -> None:
        """Tell what was read off, and how long the answer took."""

    @abstractmethod
    def _failed(self, error: Exception) -> None:
        """Tell why there is no answer; what this raises stands in place of the error."""


class Watched(ProgramBeside):
    """A program as an experimenter watches it.

    Attributes:
        opened: what was opened last.
        error: why the next state could not be made.
    """

    opened: Summed | None = None
    error: SecureFLError | None = None

    def begin(self) -> None:
        """A round begins: nothing is opened."""
        self.opened = None

    def apply(self, state: State, opened: Summed) -> State:
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
        seconds: that answers took, of all clients.
        called: clients that were called.
    """

    number: int = -1
    seen: dict[int, Seen] = field(default_factory=dict)
    error: SecureFLError | None = None
    seconds: float = 0.0
    called: int = 0


class WatchedAnswers(AnswersBeside):
    """One client's answers, of which the experimenter is told in this process."""

    def __init__(self, client: Client, number: int, watcher: LocalParties) -> None:
        super().__init__(client, number)
        self._watcher = watcher

    def _answered(self, seen: Seen, seconds: float) -> None:
        self._watcher.answered(self._number, seen, seconds)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, SecureFLError):
            self._watcher.failed(error)


def simulated(
    who: Identity, roster: Roster, program: Program, answers: Answers, shared: Shared, head: bytes
) -> FederationClient:
    """A client as a party: of any plan it makes what is there already, and follows the transcript
    from `head` on.
    """
    site = Site(lambda _: (program, answers), follow=Follower(shared.followed, head))
    store = MemoryStore(bytes_too=False)
    return FederationClient(who, roster, site, store=store, shared=shared)


class Crew(Protocol):
    """A simulation's clients, wherever they are.

    Attributes:
        size: processes that they answer in.
        lost: why they cannot go on.
    """

    @property
    def size(self) -> int: ...

    @property
    def lost(self) -> SecureFLError | None: ...

    def members(self) -> Sequence[Member]:
        """New identities of all clients, in their order."""

    def hosts(
        self, roster: Roster, coordinator: Identity, head: bytes, watcher: LocalParties
    ) -> list[Host]:
        """Where the clients are parties of this federation. They begin with the state that the
        watched program starts with, and follow the transcript from `head` on, 32 bytes.
        """


class HereCrew:
    """Clients of this process."""

    size = 1
    lost: SecureFLError | None = None

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self._people = [Identity.generate(client_name(each)) for each in range(len(clients))]

    def members(self) -> list[Member]:
        return [one.member for one in self._people]

    def hosts(
        self, roster: Roster, coordinator: Identity, head: bytes, watcher: LocalParties
    ) -> list[Host]:
        shared, program, made = watcher.shared, watcher.watched, list[FederationClient]()
        for number, (person, client) in enumerate(zip(self._people, self._clients, strict=True)):
            answers = WatchedAnswers(client, number, watcher)
            made.append(simulated(person, roster, program, answers, shared, head))
        return [Here(made)]


class LocalParties:
    """A federation of one run, round by round.

    Args:
        program: of the federation.
        state: from which it goes on.
        crew: what answers.
        replied: told of each answer.
        recorder: writes the transcript, which clients follow.

    Attributes:
        watched: the program.
        shared: what the parties of this process share.
        told: what was read off the clients in the last round.
    """

    def __init__(
        self, program: StepProgram, state: State, crew: Crew, replied: Replied, recorder: Recorder
    ) -> None:
        config = program.facts.config
        self.watched, self.shared, self.told = Watched(program, state), Shared(), Told()
        self._crew, self._replied, self._recorder = crew, replied, recorder
        head = recorder.head
        others = {role: Identity.generate(role, role) for role in _ROLES}
        everyone = (*(one.member for one in others.values()), *crew.members())
        unsigned = Roster(FEDERATION, everyone, config.security.rotation_rounds)
        coordinator = others["coordinator"]
        named = unsigned.sign(coordinator)
        roster = Roster.open(named, coordinator.member)
        plan = self._plan(roster)
        signed = plan.sign(coordinator, roster)
        recorder.planned(plan, roster, (coordinator.card(), named, signed))
        self.server = FederationServer(
            others["server"],
            roster,
            signed,
            self.watched,
            start=state.place,
            number=recorder.number,
            journal=replace(recorder.journal, write=self._write),
        )
        clients = crew.hosts(roster, coordinator, head, self)
        hosts: list[Host] = [Here([self.server]), *clients]
        if self.server.plan.by_authority:
            identity, shared, watched = others["authority"], self.shared, self.watched
            authority = FederationAuthority(identity, roster, lambda _: watched, shared=shared)
            hosts.append(Here([authority]))
        self._queue = Queue(hosts, "server", tap=self._tap)
        self._bytes, self._refused = Counter[tuple[str, int]](), list[str]()
        self._called: dict[Place, set[int]] = {}
        self._at = state.place
        self._numbers = set[int]()
        """Of the attempts at the place under way."""

    def run(self, state: State, called: int) -> tuple[State, Summed]:
        """One round: the state after it, and what was opened. Raises SecureFLError: a client could
        not answer, or the round failed.

        Args:
            state: at the place where the parties are.
            called: clients that will be asked.
        """
        self.told.__dict__.update(Told(called=called).__dict__)
        place = self._at = state.place
        self._numbers = self._called.pop(place, set())
        self.watched.begin()
        self._queue.run(until=lambda: self.server.place != place or self._error is not None)
        if self._error is not None:
            raise self.server.hindrance or self._error
        if self.server.failed is not None:
            raise self.server.failed
        opened, after = self.watched.opened, self.shared.known(self.server.state)
        assert opened is not None
        after = self.watched.program.apply(state, opened) if after is None else after
        if after.digest != self.server.state:
            problem = "a worker process came to another state than this one"
            raise TrainingError(problem, "state", place, "run it with runtime.workers = 1")
        return after, opened

    def answered(self, client: int, seen: Seen, seconds: float) -> None:
        """Take in what is read off a client that has answered."""
        told = self.told
        if told.number != self.server.number:
            told.number, told.seen = self.server.number, {}
        told.seconds += seconds
        told.seen[client] = seen
        try:
            self._replied(client, len(told.seen), told.called)
        except SecureFLError as error:  # of a hook: the client would take it for its own refusal
            self.failed(error)

    def failed(self, error: SecureFLError) -> None:
        """Take in why a client could not answer."""
        self.told.error = self.told.error or error

    def opened_elsewhere(self, place: tuple[int, int], opened: Callable[[], Summed]) -> None:
        """Take in what was opened in another process, once."""
        if self.watched.opened is None and self.server.place == Place(*place):
            self.watched.opened = opened()

    @property
    def _error(self) -> SecureFLError | None:
        """Why a client of this run could not go on: it ends a simulation."""
        return self.told.error or self.watched.error or self._crew.lost

    def cost(self, seconds: float) -> Cost:
        """Of the round that was run last, of which `seconds` have passed.

        What was prepared beside it in vain is in it. The transcript's lines that calls bring along
        are not counted: how many there are depends on when a run was stopped.
        """
        last, sent = max(*self._numbers, self.server.number - 1), Counter[str]()
        for way, number in [*self._bytes]:
            sent[way] += self._bytes.pop((way, number)) if number <= last else 0
        refused, answering = tuple(self._refused), self.told.seconds / self._crew.size
        self._refused.clear()
        return Cost(sent["down"], sent["up"], seconds - answering, refused)

    def _plan(self, roster: Roster) -> Plan:
        facts, config = self.watched.program.facts, self.watched.program.facts.config
        tensors = self.watched.program.factory.make_encoder(0).state_dict().items()
        layout = repr([(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors])
        return Plan(
            config.model_dump(mode="json"),
            facts.shape,
            facts.classes,
            roster.names("client"),
            roster.digest,
            hashlib.sha256(layout.encode()).digest(),
            self.watched.first.digest,
            _LARGEST_STATE,
            "server",
            "authority" if config.security.key_holder == "authority" else "",
            largest=facts.largest,
        )

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
