"""A toy federation with a fault in it, and what is asked of every run, whatever the fault.

A trial is bounded in messages and in time on the federation's clock. Of each client it keeps a
ledger of what it admitted before it answered, and of the server what its transcript says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from federation.parties.toy_federation import Made, Toy, ToyAnswers, make

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.errors import SecureFLError, TrainingError
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.state import State
from secure_fl.federation.summing import Summed
from secure_fl.federation.wire import route
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.secure_sum.grid import Blocks

KINDS = [
    ("plain", "clients"),
    ("masked", "clients"),
    ("bfv+masked", "clients"),
    ("bfv+masked", "authority"),
]
MOST_MESSAGES = 2_000
"""Messages of one trial; an honest one of five clients and two rounds has 150 at most."""
MOST_WAITS = 60
"""Deadlines that may pass in one trial."""


class EndlessError(AssertionError):
    """A run that has more messages than any outcome needs."""


@dataclass(frozen=True)
class Recorded(ToyAnswers):
    """Answers that are checked to have been paid for."""

    ledger: PrivacyLedger = field(default_factory=PrivacyLedger)
    answered: list[str] = field(default_factory=list)

    def releases(self, state: State, position: int) -> Sequence[Release]:
        event, unit = GaussianEvent(5.0, 1.0, 1), PrivacyUnit.EXAMPLE
        key, number = release_name(state, self.client), state.place.round
        return [Release(key, "toy", number, "step", unit, (self.client,), event, "declared")]

    def admit(self, releases: Sequence[Release]) -> None:
        for release in releases:
            self.ledger.record(release)

    def answer(self, state: State, position: int) -> Blocks:
        name = release_name(state, self.client)
        assert name in {release.key for release in self.ledger.releases}, "answered before it paid"
        self.answered.append(name)
        return super().answer(state, position)


def release_name(state: State, client: int) -> str:
    """Of what a client's answer at a state releases."""
    return f"toy/{state.place.round}/{client}"


@dataclass
class Trial:
    """All parties of one run, the fault that is in it, and what came of it.

    Attributes:
        made: the parties.
        books: each client's answers, with its ledger.
        entries: what the server wrote down.
        hung: whether the messages ran dry with the server waiting for nothing.
    """

    made: Made
    books: list[Recorded]
    entries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    hung: bool = False
    wrap: Callable[[Party, Trial], Party] = lambda party, trial: party
    messages: int = 0
    queue: Queue | None = None

    @property
    def now(self) -> float:
        """The federation's clock."""
        return 0.0 if self.queue is None else self.queue.now

    def run(self, tap: Tap | None = None) -> Trial:
        """Until the server ends it, or nothing is left to be done."""

        def counted(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
            self.messages += 1
            if self.messages > MOST_MESSAGES:
                raise EndlessError(self.messages)
            if {sender, to} & self.made.lost:
                return None
            return data if tap is None else tap(sender, to, data)

        server, *others = self.made.parties
        hosts = [Here([self.wrap(one, self) for one in group]) for group in ([server], others)]
        self.queue = queue = Queue(hosts, server.name, tap=counted)
        try:
            queue.run(most=MOST_WAITS)
        except TrainingError:
            self.hung = True
        return self

    @property
    def ended(self) -> str:
        """The word that the server ended with; empty where the program was done."""
        error = self.made.server.failed
        return "" if error is None else str(getattr(error, "reason", error.code))

    @property
    def sums(self) -> list[tuple[int, tuple[str, ...]]]:
        """Round of the program and survivors of every sum that was opened."""
        places = {each["round"]: each["place"][1] for kind, each in self.entries if kind == "round"}
        said = [each for kind, each in self.entries if kind == "sum"]
        return [(places[each["round"]], tuple(each["survivors"])) for each in said]

    @property
    def survivors(self) -> list[list[int]]:
        """Clients that each opened sum is made of, by number."""
        return [[int(name[-4:]) for name in names] for _, names in self.sums]

    @property
    def calls(self) -> list[tuple[int, int, list[str]]]:
        """Round of the program, attempt and clients left out, of every call."""
        said = [each for kind, each in self.entries if kind == "round"]
        return [(each["place"][1], each["attempt"], list(each["left_out"])) for each in said]

    def check(self, absent: Sequence[int] = ()) -> None:
        """No wrong model, no lost budget, and no second sum of the same answers.

        Args:
            absent: clients that do not come to the end of it.
        """
        assert not self.hung
        assert self.made.server.over
        sums = self.sums
        assert len({place for place, _ in sums}) == len(sums), "a round was opened twice"
        for place, names in sums:
            for name in names:
                client = int(name[-4:])
                known = {release.key for release in self.books[client].ledger.releases}
                assert f"toy/{place}/{client}" in known, "released, and not in the ledger"
        states = replayed(self.made, self.survivors)
        digests = [state.digest for state in states]
        assert self.made.server.state == digests[-1]
        for number, client in enumerate(self.made.clients):
            if client.state is not None:
                assert client.state.digest in digests, "a state that no run comes to"
                if number not in absent and not self.ended:
                    assert client.state.digest == digests[-1]
                    assert client.over


def replayed(made: Made, survivors: Sequence[Sequence[int]]) -> list[State]:
    """The states of a run in which just these clients take part, computed in the open."""
    program = Toy(len(made.clients), 99)
    states = [program.start()]
    for names in survivors:
        answers = [ToyAnswers(client).answer(states[-1], 0) for client in names]
        total = answers[0]
        for answer in answers[1:]:
            total = total + answer
        opened = (
            total.pools * (total.head >= program.form(states[-1].place).opening.minimum)[:, None]
        )
        states.append(program.apply(states[-1], Summed(replace(total, pools=opened), len(names))))
    return states


def trial(
    protection: str = "masked",
    key_holder: str = "clients",
    clients: int = 5,
    rounds: int = 2,
    answers: Callable[[int], Recorded] = Recorded,
) -> Trial:
    """A federation to put a fault into."""
    books = [answers(number) for number in range(clients)]
    made = make(clients, protection, key_holder, rounds=rounds, answers=books.__getitem__)
    for client, book in zip(made.clients, books, strict=True):
        client._site = replace(client._site, admit=book.admit)
    one = Trial(made, books)
    made.server._journal = Journal(lambda kind, facts, _: one.entries.append((kind, dict(facts))))
    return one


def chunk_of(data: bytes | memoryview) -> tuple[Phase, int, int]:
    """Phase, chunk and round of a message; an upload's chunk is 0."""
    header: Header = route(data)
    return header.phase, header.chunk, header.round


__all__ = [
    "KINDS",
    "Message",
    "Recorded",
    "SecureFLError",
    "Trial",
    "chunk_of",
    "replayed",
    "trial",
]
