"""A worker process: some of a simulation's clients, each a party of its own.

It is told what everybody knows, the examples of its clients, the roster and the state that they
begin with; from then on its clients live from the bytes that they receive. Beside them sits a desk,
which answers what an experimenter asks, and passes on what one reads off them.

Guarantee: what is released is kept by the run itself, in its one release box, before it is sent.
Assumes: who started the process is the run. Noise is of this process' own source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.engines.parties import AnswersBeside, ProgramBeside, simulated
from secure_fl.engines.pipes import Ask
from secure_fl.engines.sending import (
    client_of,
    decode,
    encode,
    error_document,
    named,
    seen_document,
    summed_packet,
)
from secure_fl.errors import SecureFLError, TrainingError
from secure_fl.federation.client import Client
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.observe import Seen
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.summing import Summed
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.privacy.noise import NoiseSource

DESK = "desk"
Tensors = dict[str, Tensor]
Told = Callable[[dict[str, Any], Tensors], tuple[dict[str, Any], Tensors]]
"""Tells the run something, and waits for what it says."""


class FarBox(ReleaseBox):
    """The run's release box, from a worker."""

    def __init__(self, tell: Told) -> None:
        super().__init__(None)
        self._tell = tell

    def once(self, key: str, make: Callable[[], Tensors], *, reused: bool = False) -> Tensors:
        head = {"about": "box", "key": key, "reused": reused}
        said, found = self._tell(head | {"do": "again"}, {})
        return found if said["found"] else self._tell(head | {"do": "keep"}, make())[1]

    def find(self, key: str) -> Tensors | None:
        said, found = self._tell({"about": "box", "do": "find", "key": key}, {})
        return found if said["found"] else None


class TellingProgram(ProgramBeside):
    """A replica's program, which tells the run what was opened."""

    def __init__(self, program: StepProgram, first: State, tell: Told) -> None:
        super().__init__(program, first)
        self._tell = tell

    def apply(self, state: State, opened: Summed) -> State:
        head, tensors = summed_packet(opened)
        place = [state.place.step, state.place.round]
        self._tell(head | {"about": "opened", "place": place}, tensors)
        return self.program.apply(state, opened)


class TellingAnswers(AnswersBeside):
    """One client's answers, of which the run is told."""

    def __init__(self, client: Client, number: int, tell: Told) -> None:
        super().__init__(client, number)
        self._tell = tell

    def _answered(self, seen: Seen, seconds: float) -> None:
        head = {"about": "answer", "client": self._number, "seconds": seconds}
        self._tell(head | {"seen": seen_document(seen)}, {})

    def _failed(self, error: Exception) -> None:
        self._tell({"about": "error", "error": error_document(error)}, {})
        if not isinstance(error, SecureFLError):
            raise TrainingError("raises", "client", "", "read what the run says") from None


class Seat:
    """Where one client of a worker is a party, once it is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: FederationClient | None = None

    @property
    def over(self) -> bool:
        return self.taken is not None and self.taken.over

    @property
    def due(self) -> float | None:
        return None if self.taken is None else self.taken.due

    def receive(self, data: bytes | memoryview) -> list[Message]:
        return [] if self.taken is None else self.taken.receive(data)

    def tick(self, now: float) -> list[Message]:
        return [] if self.taken is None else self.taken.tick(now)


class Desk:
    """Answers what the run asks of a worker."""

    name, over, due = DESK, True, None

    def __init__(self, numbers: Sequence[int], names: Sequence[str], ask: Ask) -> None:
        self.seats: dict[str, Seat] = {name: Seat(name) for name in names}
        self._numbers, self._ask = dict(zip(names, numbers, strict=True)), ask
        self._people: dict[str, Identity] = {}
        self._clients: dict[int, Client] = {}

    def tick(self, now: float) -> list[Message]:
        """Nothing: it waits to be asked."""
        return []

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One question, and its answer."""
        head, tensors = decode(data)
        try:
            said = getattr(self, f"_on_{head.pop('do')}")(head, tensors)
        except SecureFLError as error:
            said = {"error": error_document(error)}
        return [Message("run", encode(said or {}))]

    def _tell(self, head: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        return decode(self._ask(encode(head, tensors)))

    def _on_begin(self, head: dict[str, Any], tensors: Tensors) -> None:
        """What everybody knows."""
        facts = PublicFacts.from_document(head["facts"])
        factory = Factory.of(facts, named(head["encoder"]), named(head["augment"]))
        self._program = StepProgram(factory, steps_of(factory))
        self._bench, self._noise = Workbench(factory), NoiseSource.fresh()
        self._box, self._earlier = FarBox(self._tell), PrivacyLedger()
        for release in head["earlier"]:
            self._earlier.record(Release.from_dict(release))

    def _on_client(self, head: dict[str, Any], tensors: Tensors) -> None:
        """One client's examples."""
        data, privacy = client_of(head, tensors), self._program.facts.config.privacy
        unit = PrivacyUnit("example" if privacy.unit == "none" else privacy.unit)
        already = self._earlier.brought(unit, data.id, Adjacency(privacy.adjacency))
        made = (self._program, data, self._bench, self._noise, self._box, already)
        self._clients[data.id] = Client.of(*made)

    def _on_members(self, head: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        """New identities of the clients: their public halves."""
        self._people = {name: Identity.generate(name) for name in self.seats}
        return {"members": [one.member.document() for one in self._people.values()]}

    def _on_join(self, told: dict[str, Any], tensors: Tensors) -> None:
        """The clients become parties, which follow the transcript from the head that is told."""
        coordinator = Member.from_document(told["coordinator"])
        roster = Roster.open(bytes.fromhex(told["roster"]), coordinator)
        head, first = bytes.fromhex(told["head"]), _state(tensors)
        program, shared = TellingProgram(self._program, first, self._tell), Shared()
        for name, seat in self.seats.items():
            number = self._numbers[name]
            answers = TellingAnswers(self._clients[number], number, self._tell)
            seat.taken = simulated(self._people[name], roster, program, answers, shared, head)

    def _on_releases(self, head: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        state = _state(tensors)
        found = [
            release.to_dict()
            for position, client in head["places"]
            if client in self._clients
            for release in self._clients[client].releases(state, position)
        ]
        return {"releases": found}

    def _on_scored(self, head: dict[str, Any], tensors: Tensors) -> None:
        state, step = _state(tensors), Evaluate(self._program.factory)
        for number, client in self._clients.items():
            seen = seen_document(client.scored(step, state, number))
            self._tell({"about": "score", "client": number, "seen": seen}, {})

    def _on_remind(self, head: dict[str, Any], tensors: Tensors) -> None:
        for client, pool in head["choices"].items():
            if int(client) in self._clients:
                self._clients[int(client)].local.before = pool

    def _on_recalled(self, head: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        state = _state(tensors)
        found = [each for client in self._clients.values() for each in client.recalled(state)]
        return {"releases": [release.to_dict() for release in found]}

    def _on_recall(self, head: dict[str, Any], tensors: Tensors) -> None:
        state = _state(tensors)
        for client in self._clients.values():
            client.recall(state)


def make(facts: bytes, ask: Ask) -> list[Party]:
    """The parties of a worker: its clients, and the desk."""
    head, _ = decode(facts)
    desk = Desk(head["numbers"], head["names"], ask)
    return [*desk.seats.values(), desk]


def _state(tensors: Tensors) -> State:
    return State.decode(bytes(tensors["state"].numpy()))
