"""A server that lies about the round to come is refused, and the one that runs goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from federation.parties.test_lying_server import begin, refusal, server_wire
from federation.parties.toy_federation import Made, ToyAnswers, make

from secure_fl.crypto.envelope import Phase
from secure_fl.errors import PrivacyError
from secure_fl.federation.parties import ahead, calling
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.client_round import ClientRound
from secure_fl.federation.parties.party import Message
from secure_fl.federation.state import State
from secure_fl.federation.wire import route, shown
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.steps import ClientStep


def propose(made: Made, number: int, place: tuple[int, int] = (0, 1), **changes: Any) -> bytes:
    """A proposal as the server signs it."""
    facts = {"place": list(place), "left_out": []} | changes
    return server_wire(made).sign(Phase.PREPARE, facts, number=number)


def running(**more: Any) -> tuple[Made, FederationClient]:
    """A client in round 3."""
    made = make(4, **{"protection": "masked", "rounds": 3} | more)
    client = made.clients[0]
    client.receive(made.signed)
    client.receive(begin(made, 3))
    return made, client


def prepared() -> tuple[Made, FederationClient]:
    """In round 3, with round 4 prepared."""
    made, client = running()
    [keys] = client.receive(propose(made, 4))
    assert route(keys.data).phase == Phase.ADVERTISE
    assert route(keys.data).round == 4
    return made, client


@pytest.mark.parametrize(
    ("number", "changes", "reason"),
    [
        (4, {"place": (0, 2)}, "out-of-turn"),
        (4, {"place": (0, 0)}, "out-of-turn"),
        (4, {"place": (0, 3)}, "out-of-turn"),
        (4, {"place": (7, 0)}, "out-of-turn"),
        (5, {"place": (0, 0)}, "out-of-turn"),
        (5, {"place": (0, 1 << 20)}, "out-of-turn"),
        (2, {}, "repeated"),
        (4, {"left_out": ["client-0001", "client-0002"]}, "too-few"),
        (4, {"left_out": ["client-0000"]}, None),
        (4, {"left_out": ["client-0009"]}, None),
        (4, {"left_out": ["client-0002", "client-0001"]}, None),
        (3, {}, None),
    ],
)
def test_a_proposal_that_does_not_fit(
    number: int, changes: dict[str, Any], reason: str | None
) -> None:
    """Where it may be anybody's mistake nothing is said; the running round does not notice."""
    made, client = running()
    before = client._progress.round
    sent = client.receive(propose(made, number, **changes))
    if reason is not None:
        found = refusal(made, sent)
        assert (found["about"], found["reason"]) == ("prepare", reason)
        assert route(sent[0].data).round == number  # nobody takes it for one of the running round
    else:
        assert client.refusals.counts.total() == 1
        assert all(route(message.data).phase == Phase.REFUSE for message in sent)
    assert client._progress.round is before
    assert client._progress.ahead.round is None
    [keys] = client.receive(propose(made, 4))
    assert route(keys.data).phase == Phase.ADVERTISE


def test_in_the_open_nothing_is_prepared() -> None:
    made, client = running(protection="plain")
    assert refusal(made, client.receive(propose(made, 4)))["reason"] == "out-of-turn"


def test_a_proposal_comes_again_and_is_answered_alike() -> None:
    made, client = prepared()
    assert client.receive(propose(made, 4)) == client.receive(propose(made, 4)) != []
    other = client.receive(propose(made, 4, left_out=["client-0003"]))
    assert refusal(made, other)["reason"] == "repeated"


def test_a_client_prepares_one_round_at_a_time() -> None:
    """A later proposal takes the place of the earlier one, whose secrets are gone."""
    made, client = prepared()
    first = client._progress.ahead.round
    assert first is not None
    [keys] = client.receive(propose(made, 6))
    assert route(keys.data).round == 6
    assert client._progress.ahead.round is not first
    forgotten(first)


def forgotten(one: ClientRound) -> None:
    state = one._round._state
    assert state.step == ClientStep.LEFT
    assert (state.sealing, state.masking, state.self_seeds, state.rows) == (None, None, [], {})


def reached(made: Made, client: FederationClient) -> None:
    """The running round is over, and led to the next place."""
    seat = client._seat
    assert seat is not None
    state = seat.replica.state
    place = replace(state.place, round=state.place.round + 1)
    for each in made.clients:  # `begin` reads the first one's
        if each._seat is not None:
            each._seat.replica.state = State(place, state.tensors, state.facts)


CHANGES = [{"left_out": ["client-0003"]}, {"attempt": 2}]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_number_is_for_the_call_that_it_was_prepared_for(changes: dict[str, Any]) -> None:
    """Another call under it is refused; under the next one it begins afresh."""
    made, client = prepared()
    reached(made, client)
    first = client._progress.ahead.round
    assert first is not None
    assert refusal(made, client.receive(begin(made, 4, **changes)))["reason"] == "repeated"
    assert client._progress.ahead.round is first
    [keys] = client.receive(begin(made, 5, **changes))
    assert (route(keys.data).phase, route(keys.data).round) == (Phase.ADVERTISE, 5)
    forgotten(first)
    assert client._progress.ahead.round is None
    for number in (3, 4):
        assert refusal(made, client.receive(propose(made, number, (0, 2))))["reason"] == "repeated"


def test_the_call_that_was_prepared_begins_with_what_was() -> None:
    made, client = prepared()
    reached(made, client)
    first = client._progress.ahead.round
    [keys] = client.receive(begin(made, 4))  # as no list of keys has come, they are said again
    assert (route(keys.data).phase, route(keys.data).round) == (Phase.ADVERTISE, 4)
    assert client._progress.round is first


def opened_once(made: Made) -> dict[str, list[Message]]:
    """What clients say to a second attempt at a prepared round whose sums were opened.

    The server leaves a client out: the difference of the two sums would be that client's answer.
    """
    applied = list[str]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if header.phase == Phase.APPLY and to != "server" and header.round == 1:
            applied.append(to)
        return None if applied else data

    made.run(tap)
    assert made.server.failed is not None
    assert len(applied) == 4
    call = begin(made, 7, attempt=2, left_out=["client-0003"])
    return {client.name: client.receive(call) for client in made.clients[:3]}


def test_the_answers_of_a_prepared_round_are_summed_once() -> None:
    made = make(4, "masked", rounds=3)
    said = opened_once(made)
    assert {refusal(made, sent)["reason"] for sent in said.values()} == {"already-opened"}


def test_a_question_that_is_new_with_each_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: clients do not know that two attempts ask for the same answers."""
    honest = calling._named
    monkeypatch.setattr(
        calling,
        "_named",
        lambda what, plan, facts: b"" if what == b"question" else honest(what, plan, facts),
    )
    said = opened_once(make(4, "masked", rounds=3))
    assert {route(sent[0].data).phase for sent in said.values()} == {Phase.ADVERTISE}


class Charged(ToyAnswers):
    """Notes when releases are admitted."""

    def releases(self, state: State, position: int) -> list[Release]:
        if state.place.round == 1:
            raise PrivacyError("spent", field="epsilon", value=1, remedy="none")
        return []


def test_the_gate_is_asked_when_a_round_begins_and_never_before() -> None:
    """It would refuse the prepared round; then what was prepared is thrown away."""
    made, client = running(answers=Charged)
    assert route(client.receive(propose(made, 4))[0].data).phase == Phase.ADVERTISE
    first = client._progress.ahead.round
    assert first is not None
    reached(made, client)
    assert refusal(made, client.receive(begin(made, 4)))["reason"] == "over-budget"
    forgotten(first)


def test_checks_of_proposals_are_what_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a client that believes whatever place it is told."""
    monkeypatch.setattr(ahead, "_checked", lambda seat, call, begun: call.place)
    made, client = running()
    [keys] = client.receive(propose(made, 4, (0, 2)))
    assert route(keys.data).phase == Phase.ADVERTISE
    assert shown(client._progress.ahead.round.call.place) == [0, 2]  # type: ignore[union-attr]
