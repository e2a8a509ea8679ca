"""A server that does otherwise: honest clients refuse it, each time with a signed reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from federation.parties.toy_federation import Made, make

from secure_fl.crypto.envelope import Phase, sign_envelope
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.party import Message
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import Place
from secure_fl.federation.wire import Wire, route, shown
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import Survivors
from secure_fl.secure_sum.plan import RoundPlan


def refusal(made: Made, messages: list[Message]) -> dict[str, Any]:
    """What a client signed instead of an answer."""
    [message] = messages
    assert route(message.data).phase == Phase.REFUSE
    wire = Wire(made.identities["server"], made.roster)
    return dict(wire.open(message.data, most=1 << 20, role="client").facts)


def server_wire(made: Made) -> Wire:
    wire = Wire(made.identities["server"], made.roster)
    wire.plan = made.plan.digest.hex()
    return wire


def begin(made: Made, number: int, **changes: Any) -> bytes:
    """A call as the server signs it."""
    state = made.clients[0].state
    assert state is not None
    facts = {"place": shown(state.place), "attempt": 1, "left_out": []}
    facts |= {"state": state.digest.hex(), "head": bytes(32).hex()}
    return server_wire(made).sign(Phase.BEGIN, facts | changes, frames([]), number=number)


@pytest.fixture
def joined() -> tuple[Made, FederationClient]:
    made = make(4, "masked")
    client = made.clients[0]
    [answer] = client.receive(made.signed)
    assert route(answer.data).phase == Phase.JOIN
    return made, client


def test_another_plan(joined: tuple[Made, FederationClient]) -> None:
    made, client = joined
    other = replace(made.plan, largest=2).sign(made.identities["coordinator"], made.roster)
    found = refusal(made, client.receive(other))
    assert (found["about"], found["reason"]) == ("plan", "other-plan")


def test_a_plan_that_nobody_signed(joined: tuple[Made, FederationClient]) -> None:
    made, _ = joined
    fresh = make(4, "masked", people=made.identities).clients[0]
    by_server = made.plan.sign(made.identities["server"], made.roster)
    assert fresh.receive(by_server) == []
    assert fresh.refusals.counts["wrong-role"] == 1


def test_a_plan_of_another_roster(joined: tuple[Made, FederationClient]) -> None:
    made, _ = joined
    fresh = make(4, "masked", people=made.identities).clients[0]
    smaller = made.roster.revoke("client-0003")
    plan = replace(made.plan, roster=smaller.digest, clients=made.plan.clients[:3])
    sent = fresh.receive(plan.sign(made.identities["coordinator"], smaller))
    assert refusal(made, sent)["reason"] == "wrong-roster"


def test_a_plan_that_the_site_does_not_accept() -> None:
    made = make(4, "masked", judge=lambda plan: "clip 3.0 where 1.0 is allowed")
    found = refusal(made, made.clients[0].receive(made.signed))
    assert found["reason"] == "against-policy"
    assert "clip 3.0" in found["problem"]
    made.run()
    assert made.server.failed is not None
    assert {said["reason"] for said in made.server.said} == {"against-policy"}


def test_other_models_at_the_start(joined: tuple[Made, FederationClient]) -> None:
    made, _ = joined
    plan: Plan = replace(made.plan, start=bytes(32))
    fresh = make(4, "masked", people=made.identities).clients[0]
    sent = fresh.receive(plan.sign(made.identities["coordinator"], made.roster))
    assert refusal(made, sent)["reason"] == "other-start"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "ab" * 32}, "forked"),
        ({"head": "ab" * 32}, "forked"),
        ({"left_out": ["client-0001", "client-0002"]}, "too-few"),
        ({"left_out": ["client-0000"]}, None),
        ({"left_out": ["client-0009"]}, None),
        ({"attempt": 9}, None),
        ({"place": [0, -1]}, None),
    ],
)
def test_a_call_that_does_not_fit(
    joined: tuple[Made, FederationClient], changes: dict[str, Any], reason: str | None
) -> None:
    made, client = joined
    sent = client.receive(begin(made, 0, **changes))
    if reason is None:
        assert sent == []
        assert client.refusals.counts.total() == 1
    else:
        assert refusal(made, sent)["reason"] == reason
    assert route(client.receive(begin(made, 1))[0].data).phase == Phase.ADVERTISE


def test_the_same_round_or_place_again(joined: tuple[Made, FederationClient]) -> None:
    made, client = joined
    call = begin(made, 5)
    first = client.receive(call)
    assert route(first[0].data).phase == Phase.ADVERTISE
    assert client.receive(call) == first
    for number, attempt in ((5, 2), (4, 2), (6, 1)):
        found = refusal(made, client.receive(begin(made, number, attempt=attempt)))
        assert found["reason"] == "repeated"
    again = client.receive(begin(made, 6, attempt=2, left_out=["client-0003"]))
    assert route(again[0].data).phase == Phase.ADVERTISE


def test_a_place_that_is_behind() -> None:
    made = make(4, "masked")
    made.run()
    found = refusal(made, made.clients[0].receive(begin(made, 9, place=[0, 0])))
    assert found["reason"] == "older-place"


def test_a_state_that_too_few_signed() -> None:
    """Three of four must have signed what a client takes that did not apply the sums."""
    made = make(4, "masked", rounds=2)
    sent: dict[str, bytes] = {}

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.round, header.phase, sender) == (0, Phase.UPLOAD, "client-0003"):
            return None
        if header.phase == Phase.STATE and sender == "server":
            sent["whole"] = bytes(data)
        return data

    made.run(tap)
    assert made.server.failed is None
    late = make(4, "masked", rounds=2, people=made.identities).clients[2]
    late.receive(made.signed)
    for grant in made.server._keys.current:
        late.receive(grant)
    wire = server_wire(made)
    post = wire.open(sent["whole"], most=1 << 20, role="server")
    sealed, *claims = unframe(post.rest)
    short = wire.sign(Phase.STATE, post.facts, frames([sealed, *claims[:2]]))
    assert refusal(made, late.receive(short))["reason"] == "not-agreed"
    twice = wire.sign(Phase.STATE, post.facts, frames([sealed, *claims[:2], claims[0]]))
    assert late.receive(twice) == []
    assert late.receive(sent["whole"]) == []
    assert late.state is not None
    assert late.state.place == Place(0, 1)


def test_survivors_that_differ_from_client_to_client() -> None:
    """The server shows one client a smaller set than it shows the others."""
    made = make(4, "masked", rounds=1)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if sender != "server" or header.phase != Phase.AGREE or to != "client-0001":
            return data
        attempt = made.server._attempt
        assert attempt is not None
        plan: RoundPlan = attempt.plans[0]
        body = Survivors(bytes(32), (0, 1, 2)).encode()
        head = plan.header(Phase.AGREE, "server")
        return sign_envelope(made.identities["server"], head, body)

    made.run(tap)
    assert [(said["sender"], said["reason"]) for said in made.server.said] == [
        ("client-0001", "survivors-switched")
    ]
    assert made.server.failed is None


def test_the_answers_of_a_round_whose_sum_may_be_open_are_not_given_again() -> None:
    """Also where the server says that nothing was opened, and leaves a client out: the difference
    of the two sums would be that client's answer.
    """
    made, sums = make(4, "masked", rounds=1), list[str]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if route(data).phase == Phase.APPLY and to != "server":
            sums.append(to)
        return None if sums else data

    made.run(tap)
    assert made.server.failed is not None
    for client in made.clients:
        sent = client.receive(begin(made, 7, attempt=2, left_out=["client-0003"]))
        if client.name != "client-0003":
            assert refusal(made, sent)["reason"] == "already-opened"
