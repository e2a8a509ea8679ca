"""What the messages of a round show of the pools that clients choose: their order, their headers,
their lengths, and how long they took to make.

Real parties run rounds of the cluster phase in this process, with the run's protection, cohort,
pools and opening rule. Clients train nothing: coins choose their pools, and a random change goes
through the run's own protection of it. Blocks are cut to so many fields that a round takes a
moment; all else about a message is as in the run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from secure_fl.audit.subject import Subject
from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines import embedded
from secure_fl.engines.parties import LocalParties, simulated
from secure_fl.engines.queue import Here, Host
from secure_fl.engines.recorder import Recorder, client_name
from secure_fl.errors import SecureFLError
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.client import Client
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.parties.party import Party
from secure_fl.federation.program import SumForm
from secure_fl.federation.protections.protection import Trained
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.cluster import Cluster
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.summing import Summed
from secure_fl.federation.wire import route
from secure_fl.models.state import to_vector
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.grid import Blocks
from secure_fl.seeds import derive_seed

FIELDS = 256
"""Of a block, at most: some kilobytes of a message."""
_BEFORE = (Phase.ADVERTISE, Phase.SHARE, Phase.UPLOAD)
"""Of what a client sends, all that goes before anything is opened."""


@dataclass(frozen=True)
class Sent:
    """What an observer of the network has of one client's round.

    Attributes:
        client: its number.
        round: counted from 0.
        shape: of its messages in their order, all header fields that are no digests, and lengths.
        seconds: it took to make the upload.
    """

    client: int
    round: int
    shape: tuple[object, ...]
    seconds: float


@dataclass(frozen=True)
class Watched:
    """Rounds as an observer of the network saw them, and what was chosen.

    Attributes:
        sent: of every client and round.
        choices: by (client, round).
        ended: why the parties went no further; empty where they did all rounds.
    """

    sent: tuple[Sent, ...]
    choices: dict[tuple[int, int], int] = field(repr=False)
    ended: str = ""


def watch(subject: Subject, rounds: int, seed: int) -> Watched:
    """Run so many rounds, each client choosing its pool by a fair coin every time."""
    factory = subject.factory
    program = _Short(subject, rounds)
    encoder = {"encoder": to_vector(factory.encoder())}
    first = program.entered(State(Place(0, 0), encoder))
    choices = _drawn(len(subject.clients), rounds, factory.facts.config.pools.count, seed)
    recorder = Recorder(None, factory.facts.config, len(subject.clients))
    recorder.begins()
    crew = _Crew(subject, program, choices)
    parties = _Heard(program, first, crew, lambda *_: None, recorder)
    state, ended = first, ""
    for _ in range(rounds):
        try:
            state, _ = parties.run(state, len(program.form(state.place).cohort))
        except SecureFLError as error:
            ended = error.problem
            break
    return Watched(tuple(parties.shapes(crew.seconds)), choices, ended)


def _drawn(clients: int, rounds: int, pools: int, seed: int) -> dict[tuple[int, int], int]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "pool choices"))
    drawn = torch.randint(pools, (clients, rounds), generator=generator)
    return {(c, r): int(drawn[c, r]) for c in range(clients) for r in range(rounds)}


class _Short(StepProgram):
    """The run's cluster phase with short blocks, and pools that stand still."""

    def __init__(self, subject: Subject, rounds: int) -> None:
        factory = subject.factory
        pools = factory.facts.config.pools.model_copy(update={"rounds": rounds})
        config = factory.facts.config.model_copy(update={"pools": pools})
        facts = replace(factory.facts, config=config, begun_as=factory.facts.calibrated_for)
        made = replace(factory, facts=facts)  # calibrated for the run's own length
        super().__init__(made, (Cluster(made),))

    def form(self, place: Place) -> SumForm:
        form = super().form(place)
        width, shared = min(form.shape.width, FIELDS), min(form.shape.shared, FIELDS)
        return replace(form, shape=replace(form.shape, width=width, shared=shared))

    def apply(self, state: State, opened: Summed) -> State:
        return state.at(self.following(state.place))


class _Answers:
    """One client that adds a random change to the pool that a coin names."""

    def __init__(
        self, client: Client, number: int, program: _Short, choices: dict[tuple[int, int], int]
    ) -> None:
        self._client, self._number, self._program = client, number, program
        self._choices = choices

    def releases(self, state: State, position: int) -> Sequence[Release]:
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        program, number = self._program, state.place.round
        step, ask = program.steps[0], program.ask(state)
        assert isinstance(step, Cluster)
        pooled, shared = (
            torch.randn(len(e)) / 1e3 for e in (ask.pools.pooled[0], ask.pools.shared)
        )
        score = PoolScore(self._choices[self._number, number], (), 0.0, None)
        sent = self._client.protection.sent(
            ask, step.updates, Trained(pooled, shared), score
        ).blocks
        shape = program.form(state.place).shape
        return Blocks(sent.head, sent.shared[: shape.shared], sent.pools[:, : shape.width])


class _Crew:
    """The clients, as parties, each with a watch.

    Attributes:
        seconds: of what a client did last before it sent something, by its name and round.
    """

    size = 1
    lost: SecureFLError | None = None

    def __init__(
        self, subject: Subject, program: _Short, choices: dict[tuple[int, int], int]
    ) -> None:
        self._people = [Identity.generate(client_name(n)) for n in range(len(subject.clients))]
        self.seconds: dict[tuple[str, int], float] = defaultdict(float)
        bench, noise, box = Workbench(program.factory), embedded.new_noise(), ReleaseBox(None)
        self._answers = [
            _Answers(Client.of(program, data, bench, noise, box), number, program, choices)
            for number, data in enumerate(subject.clients)
        ]

    def members(self) -> list[Member]:
        return [each.member for each in self._people]

    def hosts(self, roster: Any, coordinator: Identity, head: bytes, watcher: Any) -> list[Host]:
        shared, program = watcher.shared, watcher.watched
        made = [
            simulated(person, roster, program, answers, shared, head)
            for person, answers in zip(self._people, self._answers, strict=True)
        ]
        return [_Timed(made, self.seconds)]


class _Timed(Here):
    """Parties of this process, and how long they work on a message that an upload follows."""

    def __init__(self, parties: Sequence[Party], seconds: dict[tuple[str, int], float]) -> None:
        super().__init__(parties)
        self._seconds = seconds

    def give(self, to: str, data: bytes | memoryview) -> None:
        before, begun = len(self._sent), time.perf_counter()
        super().give(to, data)
        passed = time.perf_counter() - begun
        for _, message in self._sent[before:]:
            header = route(message.data)
            if header.phase == Phase.UPLOAD:
                self._seconds[to, header.round] = passed


class _Heard(LocalParties):
    """Parties whose messages an observer writes down."""

    def _tap(self, sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        header = route(data)
        if header.phase == Phase.UPLOAD:
            self._places[header.round] = self.server.place.round
        if header.phase in _BEFORE and to == "server":
            self._shapes[header.round, sender].append(_shape(data))
        return super()._tap(sender, to, data)

    def __init__(self, *arguments: Any) -> None:
        self._shapes: dict[tuple[int, str], list[object]] = defaultdict(list)
        self._places: dict[int, int] = {}
        super().__init__(*arguments)

    def shapes(self, seconds: dict[tuple[str, int], float]) -> list[Sent]:
        """What was written down of every client and round."""
        numbers = {
            client_name(number): number for number in range(self.watched.program.facts.clients)
        }
        return [
            Sent(numbers[name], self._places[attempt], tuple(shape), seconds[name, attempt])
            for (attempt, name), shape in self._shapes.items()
            if name in numbers and attempt in self._places
        ]


def _shape(data: bytes | memoryview) -> tuple[object, ...]:
    """Of a message, or of the envelopes in its frame: header fields that are no digests, and the
    length of all.
    """
    try:
        parts = [data] if route(data).phase != Phase.UPLOAD else list(unframe(bytes(data)))
        headers = [read_header(part) for part in parts]
    except RefusedError:
        return (len(data),)
    plain = [
        (each.suite, each.parameters, each.phase, each.pools, each.chunk, each.chunks)
        for each in headers
    ]
    return (len(data), *zip(plain, map(len, parts), strict=True))
