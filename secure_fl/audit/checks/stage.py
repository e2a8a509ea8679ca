"""One sum of a run, played by real parties in this process, for whoever attacks it.

Server, clients and authority are those that a run makes; its settings, thresholds and opening rules
are the run's, by the form of its own step. Only the vectors are short, and made up: no example is
read, nothing is trained, and nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from secure_fl.audit.checks.scene import Scene, made_up
from secure_fl.crypto.envelope import Phase, body_of, read_header, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.errors import AuditError, SecureFLError
from secure_fl.federation.parties.attempt import Attempt
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party import Party
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place, State
from secure_fl.federation.summing import Summed
from secure_fl.federation.wire import Wire, route, shown
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.store import MemoryStore

_ROLES = ("coordinator", "server", "authority")


@dataclass(frozen=True)
class _Rounds:
    """Rounds of one form, from the `first` on; the state is the sum of all that was opened."""

    form_: SumForm
    rounds: int
    first: int

    def start(self) -> State:
        shape = self.form_.shape
        zeros = torch.zeros(shape.pools, shape.width).double()
        return State(Place(0, self.first), {"pools": zeros})

    def form(self, place: Place) -> SumForm:
        return self.form_

    def done(self, place: Place) -> bool:
        return place.round >= self.first + self.rounds

    def following(self, place: Place) -> Place:
        return Place(0, place.round + 1)

    def apply(self, state: State, opened: Summed) -> State:
        pools = state.tensors["pools"] + opened.total.pools.double()
        return State(self.following(state.place), {"pools": pools})


@dataclass(frozen=True)
class _Says:
    """A client that answers each round with the vector that it was given for it."""

    vectors: Callable[[int, int], Blocks]
    client: int

    def releases(self, state: State, position: int) -> Sequence[Release]:
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        return self.vectors(self.client, state.place.round)


@dataclass
class Stage:
    """All parties of a scene, and everything that they say.

    Attributes:
        scene: what is played.
        vectors: what each client answers.
        rounds, first: how many, from which of the run's on.
        randomness: where clients draw their secrets, by name; the operating system where None.
        before: a stage whose people and keys play again.
        folder: in which clients have folders of their own, beside one for their keys; None for
            memory.
        said: every message, as (sender, reader, bytes).
        plans: of the sums, one for each attempt.
    """

    scene: Scene
    vectors: Callable[[int, int], Blocks] | None = None
    rounds: int = 1
    first: int = 0
    randomness: Callable[[str], Callable[[int], bytes]] | None = field(default=None, repr=False)
    before: Stage | None = field(default=None, repr=False)
    folder: Path | None = None
    said: list[tuple[str, str, bytes]] = field(default_factory=list, repr=False)
    plans: list[RoundPlan] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        scene, form = self.scene, self.scene.form
        self.given = self.vectors or made_up(scene, scene.alone)
        self.program, self.shared = _Rounds(form, self.rounds, self.first), Shared()
        self.people: dict[str, Identity] = (
            _people(scene.clients) if self.before is None else self.before.people
        )
        everybody = tuple(one.member for one in self.people.values())
        coordinator = self.people["coordinator"]
        unsigned = Roster("audit", everybody, scene.config.security.rotation_rounds)
        self.roster = Roster.open(unsigned.sign(coordinator), coordinator.member)
        self.plan = self._plan()
        self.signed = self.plan.sign(coordinator, self.roster)
        self.server = FederationServer(
            self.people["server"],
            self.roster,
            self.signed,
            self.program,
            start=Place(0, self.first),
            number=self.first,
        )
        self.clients = [
            self._client(name, _Says(self.given, number)) for number, name in enumerate(self.names)
        ]
        self.authority: FederationAuthority | None = None
        if self.plan.by_authority:
            who = self.people["authority"]
            self.authority = FederationAuthority(
                who, self.roster, lambda _: self.program, shared=self.shared
            )
        self._heard: Tap | None = None
        others: list[Party] = [*self.clients, *([self.authority] if self.authority else [])]
        hosts = [Here([self.server]), Here(others)]
        self._queue = Queue(hosts, "server", tap=self._tap)

    def _client(self, name: str, says: _Says) -> FederationClient:
        site, who = Site(lambda _: (self.program, says)), self.people[name]
        more: dict[str, Any] = {"shared": self.shared}
        if self.randomness is not None:
            more["randomness"] = self.randomness(name)
        if self.folder is None:
            store = MemoryStore(bytes_too=False)
            return FederationClient(who, self.roster, site, store=store, **more)
        key = self.folder.parent / "keys" / name
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        own = PartyFolder(self.folder / name, who, self.roster.federation, key=key)
        return KeptClient(who, self.roster, site, own, **more)

    def close(self) -> None:
        """Let go of clients' folders."""
        for client in self.clients:
            if isinstance(client, KeptClient):
                client.folder.close()

    def _plan(self) -> Plan:
        config, names = self.scene.config, tuple(self.names)
        named = hashlib.sha256(b"audit").digest()
        authority = "authority" if config.security.key_holder == "authority" else ""
        facts = (config.model_dump(mode="json"), (1,), 0, names, self.roster.digest)
        start = self.program.start().digest
        return Plan(*facts, named, start, 1 << 24, "server", authority)

    @cached_property
    def names(self) -> list[str]:
        """Of the clients, in order."""
        return [name for name in self.people if name not in _ROLES]

    @property
    def attempt(self) -> Attempt:
        """What the server knows of the round that runs. Raises AuditError: none does."""
        if self.server._attempt is None:
            problem, value = "the honest round does not come so far", str(self.server.failed)
            raise AuditError(problem, "round", value, "run `secure-fl check` on the settings")
        return self.server._attempt

    @property
    def round_plan(self) -> RoundPlan:
        """Of the sum that runs."""
        return self.attempt.plans[0]

    def run(self, tap: Tap | None = None) -> None:
        """To the end, or until the round has failed for good."""
        self._heard = tap
        with suppress(SecureFLError):
            self._queue.run()

    def stop(
        self, phase: Phase, chunk: int = 0, tap: Tap | None = None, *, to_authority: bool = False
    ) -> dict[str, bytes]:
        """Up to where the server says this to clients, or to the authority: what it says, by
        reader, none of it delivered. Empty where it does not come so far.
        """
        held = dict[str, bytes]()

        def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
            header, read = route(data), (to == "authority") == to_authority
            if sender == "server" and read and (header.phase, header.chunk) == (phase, chunk):
                held[to] = bytes(data)
                return None
            return data if tap is None else tap(sender, to, data)

        self._heard = heard
        with suppress(SecureFLError):
            self._queue.run(until=lambda: bool(held))
        return held

    def _tap(self, sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        kept = bytes(data)
        self.said.append((sender, to, kept))
        running = self.server._attempt
        if running is not None and all(running.plans[0] is not plan for plan in self.plans):
            self.plans.append(running.plans[0])
        return data if self._heard is None else self._heard(sender, to, data)

    # What a server that lies makes

    def resigned(self, data: bytes, body: Callable[[bytes], bytes], name: str = "server") -> bytes:
        """A message with another body, well signed by its sender all the same."""
        header = read_header(data)
        changed, old = replace(header, body_length=0, body_hash=bytes(32)), body_of(data)
        return sign_envelope(self.people[name], changed, body(old))

    def of_sum(
        self, name: str, phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1
    ) -> bytes:
        """A message of the sum that runs, by anybody whose key the attacker has."""
        header = self.round_plan.header(phase, name, chunk=chunk, chunks=chunks)
        return sign_envelope(self.people[name], header, body)

    @property
    def wire(self) -> Wire:
        """Signs what the server says around rounds."""
        wire = Wire(self.people["server"], self.roster)
        wire.plan = self.plan.digest.hex()
        return wire

    def call(self, number: int, **changes: Any) -> bytes:
        """A call of a round, as the server signs it, at the state of the first client."""
        state = self.clients[0].state
        assert state is not None
        facts = {"place": shown(state.place), "attempt": 1, "left_out": []}
        facts |= {"state": state.digest.hex(), "head": bytes(32).hex()}
        return self.wire.sign(Phase.BEGIN, facts | changes, frames([]), number=number)

    def answers(self, party: Party, data: bytes) -> Answered:
        """What a party does with a message."""
        log = getattr(party, "refusals").counts  # noqa: B009
        before = log.copy()
        sent = [bytes(message.data) for message in party.receive(data)]
        refusal = [each for each in sent if route(each).phase == Phase.REFUSE]
        if refusal:
            role = "client" if party.name in self.names else "authority"
            post = self.wire.open(refusal[0], most=1 << 20, role=role)
            return Answered(str(post.facts["reason"]), ())
        noted = log - before
        return Answered(next(iter(noted), ""), tuple(sent))


@dataclass(frozen=True)
class Answered:
    """What a party did with a message.

    Attributes:
        word: why it refused; empty where it did not.
        sent: its answers.
    """

    word: str
    sent: tuple[bytes, ...] = field(repr=False)


def _people(clients: int) -> dict[str, Identity]:
    people = [Identity.generate(role, role) for role in _ROLES]
    people += [Identity.generate(f"client-{number:04d}") for number in range(clients)]
    return {person.name: person for person in people}
