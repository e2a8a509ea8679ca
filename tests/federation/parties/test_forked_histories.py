"""A server that shows clients different histories from the first line on gains no share of them.

Each history is one by itself, so nobody sees it alone: survivors sign what they were shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from federation.parties.test_lying_server import server_wire
from federation.parties.toy_federation import Made, make

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.queue import Tap
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import plan_facts
from secure_fl.federation.transcript.following import Follower
from secure_fl.federation.wire import Wire, route
from secure_fl.secure_sum import client as round_client
from secure_fl.secure_sum import key_directory
from secure_fl.secure_sum.framing import frames

WORD = {"sender": "x", "phase": "upload", "reason": "noise", "by": "server", "round": None}


def forking(apart: set[str]) -> tuple[Made, Tap]:
    """Parties, and a tap through which some of them are shown a line that others are not."""
    made, told, other = make(4, "masked", rounds=2), Transcript.new(), Transcript.new()
    for each in (told, other):
        each.append("plan", plan_facts(made.plan, made.roster))
    other.append("refused", WORD)

    def write(kind: str, facts: Any, evidence: Any) -> bytes:
        other.append(kind, facts, evidence)
        return told.append(kind, facts, evidence)

    made.server._journal = Journal(write, told.after, lambda: told.head)
    for client in made.clients:
        follower = Follower()
        client._site = replace(client._site, follow=follower)
        client._progress.head = follower.head
    wire, reached = server_wire(made), {client.name: Follower().head for client in made.clients}

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if to not in apart or header.phase not in (Phase.BEGIN, Phase.END):
            return data
        reader = Wire(made.identities[to], made.roster)
        reader.plan = wire.plan
        facts = reader.open(data, most=1 << 26, role="server").facts
        lines, reached[to] = frames(other.after(reached[to])), other.head
        return wire.sign(
            header.phase, {**facts, "head": other.head.hex()}, lines, number=header.round
        )

    return made, tap


def refusers(made: Made) -> set[str]:
    return {each["sender"] for each in made.server.said if each["reason"] == "not-agreed"}


def test_a_client_that_is_shown_another_history_reveals_nothing() -> None:
    """The others are of one mind, and go on; it says why it does not."""
    made, tap = forking({"client-0003"})
    shares = set[str]()

    def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if route(data).phase in (Phase.OPEN_COUNTS, Phase.OPEN_POOLS) and to == "server":
            shares.add(sender)
        return tap(sender, to, data)

    made.run(heard)
    assert refusers(made) == {"client-0003"}
    assert shares == {"client-0000", "client-0001", "client-0002"}
    assert made.server.failed is None


def test_two_halves_that_are_shown_two_histories_open_nothing() -> None:
    made, tap = forking({"client-0002", "client-0003"})
    made.run(tap)
    assert refusers(made) == {client.name for client in made.clients}
    assert getattr(made.server.failed, "reason", None) == "not-agreed"
    assert {client.state.place.round for client in made.clients if client.state} == {0}


def test_a_history_that_nobody_compares_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: clients take everybody's signature, whatever history it is over."""
    monkeypatch.setattr(
        round_client, "agreed_by", lambda *facts: key_directory.agreed_by(*facts[:4])
    )
    made, tap = forking({"client-0003"})
    made.run(tap)
    assert refusers(made) == set()


def test_one_client_that_says_another_history_ends_nothing() -> None:
    """It may not have been shown it: the others have enough signatures without its own."""
    made = make(4, "masked", rounds=2)
    made.clients[1]._progress.head = b"?" * 32
    made.clients[1]._site = replace(made.clients[1]._site, follow=lambda _: bytes(32))
    seat_of = made.clients[1]._sit

    def sit(plan: Any) -> None:
        seat_of(plan)
        assert made.clients[1]._seat is not None
        made.clients[1]._seat = replace(made.clients[1]._seat, history=lambda: b"?" * 32)

    made.clients[1]._sit = sit  # type: ignore[method-assign]
    made.run()
    assert made.server.failed is None
    assert refusers(made) == {"client-0001"}
