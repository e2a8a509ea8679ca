"""A server or an authority that dies in any phase, a new server without a record, two at once.

What holds in each: nobody hangs on a wait without an end, no round is opened twice whoever asks,
and every client's state is one that the survivors of opened sums come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from federation.parties.faulty import Mortal, Wrapped, silent
from federation.parties.toy_federation import Toy
from federation.parties.trials import KINDS, Trial, chunk_of, replayed, trial

from secure_fl.crypto.envelope import Phase
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.wire import route

ALL, REST = [0, 1, 2, 3, 4], [0, 1, 2, 4]
SERVER = [
    (Phase.PLAN, 0),
    (Phase.MAKE, 0),
    (Phase.SECRET, 0),
    (Phase.BEGIN, 0),
    (Phase.ADVERTISE, 0),
    (Phase.SHARE, 0),
    (Phase.SHARE, 1),
    (Phase.AGREE, 0),
    (Phase.OPEN_COUNTS, 0),
    (Phase.OPEN_POOLS, 0),
    (Phase.APPLY, 0),
    (Phase.APPLY, 1),
]


def new_server(one: Trial) -> tuple[FederationServer, list[tuple[str, Mapping[str, Any]]]]:
    """A server with the same key and plan, and no record of what was."""
    entries = list[tuple[str, Mapping[str, Any]]]()
    made, journal = one.made, Journal(lambda kind, facts, _: entries.append((kind, dict(facts))))
    program = Toy(len(made.clients), 2)
    server = FederationServer(
        made.identities["server"], made.roster, made.signed, program, journal=journal
    )
    return server, entries


def killed_at(one: Trial, kind: tuple[Phase, int], reached: int) -> Mortal:
    """Run until the server has sent its message of this kind to so many, and dies there."""
    mortal, count = Mortal(one.made.server), [0]
    one.wrap = lambda party, _: mortal if party.name == "server" else party

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if who == "server" and chunk_of(data) == (*kind, 0):
            mortal.killed |= count[0] == reached
            count[0] += 1
        return None if who == "server" and mortal.killed else data

    one.run(tap)
    return mortal


@pytest.mark.parametrize("reached", [0, 2])
@pytest.mark.parametrize("kind", SERVER)
@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_the_server_dies(
    protection: str, key_holder: str, kind: tuple[Phase, int], reached: int
) -> None:
    one = trial(protection, key_holder)
    mortal = killed_at(one, kind, reached)
    if not mortal.killed:
        assert one.ended == ""  # there is no such message here, or it goes to fewer
        return
    assert one.hung
    assert one.now <= 60 * 30.0  # clients say that they are there, and wait for nothing else
    first = one.survivors
    paid = [set(book.answered) for book in one.books]
    for book, names in zip(one.books, paid, strict=True):
        assert names <= {release.key for release in book.ledger.releases}
        assert len(book.answered) == len(names)
    server, entries = new_server(one)
    one.made.server, one.hung = server, False
    one.wrap = lambda party, run: Greeting(party, run) if party is server else party
    one.entries = entries
    one.run()
    assert server.over
    # The same call again gets the same keys; what follows from a list of keys is new.
    last = (Phase.BEGIN if protection == "plain" else Phase.ADVERTISE, 0)
    begun = SERVER.index(kind) + bool(reached) > SERVER.index(last)
    left = [2, 3, 4] if protection == "plain" and kind[0] == Phase.BEGIN else []
    again = [left] * 2 if left else []
    assert one.survivors == (again if begun else [ALL, ALL])
    assert one.ended == ("" if one.survivors else "too-few")
    states = replayed(one.made, first or one.survivors or [ALL])
    known = {state.digest for state in states}
    assert {client.state.digest for client in one.made.clients if client.state} <= known


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "phase",
    [
        Phase.HELLO,
        Phase.JOIN,
        Phase.KEYS,
        Phase.SECRET,
        Phase.OPEN_COUNTS,
        Phase.STATE,
        Phase.APPLY,
    ],
)
def test_the_authority_dies(phase: Phase, after: bool) -> None:
    one = trial(*KINDS[3])
    one.run(silent(one.made, "authority", phase, after=after))
    one.check()
    assert one.ended == "too-few"
    assert one.survivors == ([ALL] if (phase, after) == (Phase.APPLY, True) else [])
    assert all(client.over for client in one.made.clients if client.state is not None)


class Greeting(Wrapped):
    """A server that shows everybody the plan unasked, also those who have agreed to it."""

    def __init__(self, party: Party, run: Trial) -> None:
        super().__init__(party)
        names = (*run.made.plan.clients, *([run.made.plan.authority] if run.made.authority else []))
        self._greetings = [Message(name, run.made.signed) for name in names]

    @property
    def due(self) -> float | None:
        return 0.0 if self._greetings else self.party.due

    def tick(self, now: float) -> list[Message]:
        sent, self._greetings = self._greetings, []
        return sent or self.party.tick(now)


class Twins(Wrapped):
    """Two servers with one name and one key; one is deaf to a client's uploads."""

    def __init__(self, party: Party, other: Party, deaf: str) -> None:
        super().__init__(party)
        self.other, self._deaf = other, deaf

    @property
    def over(self) -> bool:
        return self.party.over and self.other.over

    @property
    def due(self) -> float | None:
        found = [one.due for one in (self.party, self.other) if one.due is not None]
        return min(found, default=None)

    def tick(self, now: float) -> list[Message]:
        sent = list[Message]()
        for one in (self.party, self.other):
            if one.due is not None and one.due <= now:
                sent += one.tick(now)
        return sent

    def receive(self, data: bytes | memoryview) -> list[Message]:
        header = route(data)
        deaf = header.sender == self._deaf and header.phase == Phase.UPLOAD
        return [*self.party.receive(data), *([] if deaf else self.other.receive(data))]


@pytest.mark.parametrize("deaf", ["", "client-0003"])
@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_two_servers(protection: str, key_holder: str, deaf: str) -> None:
    """In the open two sums of one round may be read, for each answer is; everywhere else not."""
    one = trial(protection, key_holder)
    other, entries = new_server(one)
    one.wrap = lambda party, _: Twins(party, other, deaf) if party.name == "server" else party
    one.run()
    assert not one.hung
    first = dict(one.sums)
    one.entries = entries
    second = dict(one.sums)
    if protection != "plain":
        assert all(second[place] == first[place] for place in first.keys() & second.keys())
    states = {client.state for client in one.made.clients if client.state is not None}
    assert len({state.place: state for state in states}) == len(states), "two states of one place"
