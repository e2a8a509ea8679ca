"""Parties that are driven in real time over sessions come to what they come to in a queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engines.session.ends import Ends
from federation.parties.toy_federation import Made, identities, make

from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Arrived, Back, Event, Lost, Watch
from secure_fl.federation.parties.participant import PATIENCE, Participant
from secure_fl.federation.parties.party import Message, Party


def over_sessions(made: Made, sites: dict[str, list[Party]], folder: Path) -> list[bool]:
    """Whether each driver went to the end."""
    ended = list[bool]()

    def drive(parties: Sequence[Party], link: Any, **more: float) -> None:
        ended.append(Driver(parties, link).run(**more))
        link.close()

    with Ends(folder) as ends:
        links = [ends.server(federation="")]
        hosted = [[made.server], *sites.values()]
        for name, parties in sites.items():
            links.append(ends.site(name, *(party.name for party in parties), federation=""))
        threads = [
            threading.Thread(target=drive, args=each, kwargs={"linger": linger, "settle": 0.0})
            for *each, linger in zip(hosted, links, [30.0, *[0.0] * len(sites)], strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return ended


@pytest.mark.parametrize(
    ("protection", "key_holder"), [("masked", "clients"), ("bfv+masked", "authority")]
)
def test_a_driven_federation_ends_as_a_queued_one(
    tmp_path: Path, protection: str, key_holder: str
) -> None:
    people = identities(4)
    queued = make(4, protection, key_holder, people=people)
    queued.run()
    made = make(4, protection, key_holder, people=people)
    sites: dict[str, list[Party]] = {"north": [*made.clients[:2]], "south": [*made.clients[2:]]}
    sites |= {"keeper": [made.authority]} if made.authority else {}
    assert over_sessions(made, sites, tmp_path) == [True] * (1 + len(sites))
    assert made.server.failed is None
    assert made.server.state == queued.server.state
    for found, wanted in zip(made.pools(), queued.pools(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


class Script:
    """A link on which what was written down happens; time goes on where nothing does.

    Attributes:
        sent: what was said, with the time.
    """

    def __init__(self, events: list[Event | float]) -> None:
        self.events, self.now = deque(events), 0.0
        self.peers = frozenset[str]()
        self.sent = list[tuple[float, str]]()

    def send(self, sender: str, message: Message) -> None:
        self.sent.append((self.now, f"{sender}:{bytes(message.data).decode()}"))

    def receive(self, seconds: float) -> Event | None:
        if self.events and isinstance(event := self.events[0], Arrived | Back | Lost):
            self.events.popleft()
            if isinstance(event, Back):
                self.peers |= {event.peer}
            if isinstance(event, Lost):
                self.peers -= {event.peer}
            return event
        if self.events:
            self.now = max(self.now, float(self.events.popleft()))  # type: ignore[arg-type]
        else:
            self.now += max(seconds, 0.01)
        return None

    def close(self) -> None:
        return None


class Echo:
    """Says what it hears, and the time when it is due; is over when it hears so."""

    def __init__(self, due: float | None = None) -> None:
        self.name, self.over, self.due = "echo", False, due

    def receive(self, data: bytes | memoryview) -> list[Message]:
        self.over = bytes(data) == b"over"
        return [Message("all", data)]

    def tick(self, now: float) -> list[Message]:
        if self.due is None or now < self.due:
            return []
        self.due = None
        return [Message("all", f"{now:.0f}".encode())]


def driven(script: Script, party: Party, **more: Any) -> Driver:
    made = Driver([party], script, clock=lambda: script.now, watch=more.pop("watch", None))
    made.run(until=lambda: script.now > 100.0, **more)
    return made


def test_a_party_is_told_the_time_when_it_is_due() -> None:
    script = Script([Arrived("echo", b"first"), 3.0])
    driven(script, Echo(due=7.0))
    assert [said for _, said in script.sent] == ["echo:first", "echo:7"]
    assert 7.0 <= script.sent[1][0] < 7.6


class Clocked(Echo):
    """Notes what time it was told last when a message comes."""

    def __init__(self) -> None:
        super().__init__(due=90.0)
        self.told, self.lag = 0.0, list[float]()
        self.clock = lambda: 0.0

    def receive(self, data: bytes | memoryview) -> list[Message]:
        self.lag.append(self.clock() - self.told)
        return []

    def tick(self, now: float) -> list[Message]:
        self.told = now
        return super().tick(now)


def test_a_wait_that_a_message_begins_counts_from_then() -> None:
    """A party that waits for a far deadline knows the time when a message comes: what it waits for
    then does not begin long ago.
    """
    events: list[Event | float] = [float(second) / 4 for second in range(1, 160)]
    script, party = Script([*events, Arrived("echo", b"x"), 50.0, Arrived("echo", b"x")]), Clocked()
    party.clock = lambda: script.now
    driven(script, party)
    assert len(party.lag) == 2
    assert max(party.lag) <= 0.5


def test_what_is_for_nobody_here_is_let_go_of() -> None:
    script = Script([Arrived("another", b"x"), Arrived("echo", b"y")])
    driven(script, Echo())
    assert [said for _, said in script.sent] == ["echo:y"]


def test_a_participant_says_that_it_is_there_when_the_way_is_back() -> None:
    """At once, and not when its patience ends."""
    made = make(4)
    script = Script([Back("server"), 1.0, Lost("server", "lost"), 2.0, Back("server"), 2.0])
    hello = list[float]()
    script.send = lambda *_: hello.append(script.now)  # type: ignore[method-assign]
    party = made.clients[0]
    assert isinstance(party, Participant)
    Driver([party], script, clock=lambda: script.now).run(until=lambda: script.now > 10.0)
    assert len(hello) == 3
    assert hello[-1] < 3.0 < PATIENCE


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([], 0.0),
        ([Back("north")], 30.0),
        ([Back("north"), 4.0, Lost("north", "closed")], 4.0),
        ([Back("north"), 4.0, Lost("north", "lost")], 30.0),
        ([Back("north"), Lost("north", "lost"), Back("north"), 6.0, Lost("north", "closed")], 6.0),
    ],
)
def test_a_server_waits_for_late_readers_as_long_as_they_may_come(
    events: list[Event | float], ended: float
) -> None:
    whole = [*events[:1], Arrived("echo", b"over"), *events[1:]]
    script = Script(whole)
    driven(script, Echo(), linger=30.0, settle=0.0)
    assert ended <= script.now < ended + 1.1
    script = Script(whole)
    driven(script, Echo(), linger=30.0, settle=10.0)
    assert max(ended, 10.0) <= script.now < max(ended, 10.0) + 1.1


class Noted(Watch):
    def __init__(self) -> None:
        self.seen = list[str]()

    def back(self, peer: str) -> None:
        self.seen.append(f"back {peer}")

    def lost(self, peer: str, reason: str) -> None:
        self.seen.append(f"lost {peer} {reason}")

    def received(self, to: str, data: bytes | memoryview, seconds: float) -> None:
        self.seen.append(f"received {to}")

    def sent(self, sender: str, message: Message) -> None:
        self.seen.append(f"sent {sender} {message.to}")

    def stepped(self, party: Party) -> None:
        self.seen.append(f"stepped {party.name}")


def test_a_watch_is_told_what_happens() -> None:
    watch = Noted()
    script = Script([Back("north"), Arrived("echo", b"x"), Lost("north", "lost")])
    driven(script, Echo(), watch=watch)
    assert watch.seen == [
        "back north",
        "received echo",
        "sent echo all",
        "stepped echo",
        "lost north lost",
    ]
