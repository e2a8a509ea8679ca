"""A federation that was closed between two rounds goes on under another plan, with newcomers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from federation.parties.toy_federation import (
    WIDTH,
    Made,
    Toy,
    ToyAnswers,
    configuration,
    identities,
)
from federation.parties.toy_federation import make as made_toy
from federation.parties.trials import replayed

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.party import failure_word
from secure_fl.federation.parties.replica import Replica
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.predecessor import Predecessor
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place, State
from secure_fl.federation.succession import begins_anew, numbered, objection

ROUNDS, OLD, ALL = 4, 5, 7
PEOPLE = identities(ALL)
KINDS = ["plain", "masked", "bfv+masked"]


@dataclass(frozen=True)
class Still(Toy):
    """What clients hold stands still."""

    def form(self, place: Place) -> SumForm:
        return replace(super().form(place), repeatable=False)


def closed(protection: str, after: int = 2) -> Made:
    """A federation that its server closed when so many rounds were done."""
    people = {name: one for name, one in PEOPLE.items() if name not in newcomers()}
    made = made_toy(OLD, protection, rounds=ROUNDS, people=people)
    made.server.closing = lambda: made.server.place.round >= after
    made.run()
    assert (made.server.over, made.server.failed) == (True, None)
    assert made.server.place == Place(0, after)
    return made


def newcomers() -> list[str]:
    return [f"client-{number:04d}" for number in range(OLD, ALL)]


def roster_of_all(before: Roster) -> Roster:
    return before.add([PEOPLE[name].card() for name in newcomers()])


def plan_after(before: Made, roster: Roster) -> Plan:
    """Of everybody, from where the one before had come to."""
    program = Toy(ALL, ROUNDS)
    follows = Predecessor(before.plan.digest, before.server.place, bytes(32))
    return replace(
        before.plan,
        configuration=configuration(program, before.plan.protection).model_dump(mode="json"),
        clients=numbered(before.plan.clients, roster.names("client")),
        roster=roster.digest,
        start=before.server.state,
        follows=follows,
    )


def goes_on(
    before: Made, plan: Plan | None = None, states: Sequence[State | None] | None = None
) -> Made:
    """All parties under the plan that follows.

    Args:
        plan: where it is another than an honest one.
        states: that clients say they had come to.
    """
    roster, program, shared = roster_of_all(before.roster), Toy(ALL, ROUNDS), Shared()
    plan = plan or plan_after(before, roster)
    signed = plan.sign(PEOPLE["coordinator"], roster)
    came_to = states or [one.state for one in before.clients]

    def client(number: int, name: str) -> FederationClient:
        state = came_to[number] if number < len(came_to) else None
        own = Site(
            lambda plan: (program, ToyAnswers(number)),
            judge=lambda plan: objection(before.plan, plan) if number < OLD else None,
            held=lambda plan: state,
        )
        return FederationClient(PEOPLE[name], roster, own, shared=shared)

    clients = [client(number, name) for number, name in enumerate(plan.clients)]
    server = FederationServer(PEOPLE["server"], roster, signed, program)
    return Made(plan, signed, roster, PEOPLE, server, clients)


@pytest.mark.parametrize("protection", KINDS)
def test_newcomers_take_part_from_the_next_round(protection: str) -> None:
    before = closed(protection)
    after = goes_on(before)
    after.run()
    assert (after.server.failed, after.server.place) == (None, Place(0, ROUNDS))
    survivors = [range(OLD)] * 2 + [range(ALL)] * 2
    last = replayed(after, survivors)[-1]
    for client in after.clients:
        assert client.state is not None
        assert torch.equal(client.state.tensors["pools"], last.tensors["pools"])
    assert all(one.over for one in after.clients)


@pytest.mark.parametrize("protection", KINDS)
def test_a_state_that_too_few_had_come_to_is_nobodys(protection: str) -> None:
    """A coordinator and one client that it keeps give newcomers a state of their own."""
    before = closed(protection)
    roster, honest = roster_of_all(before.roster), before.clients[0].state
    assert honest is not None
    tensors = {"pools": torch.full((2, WIDTH), 7.0, dtype=torch.float64)}
    made_up = State(honest.place, tensors, honest.facts)
    plan = replace(plan_after(before, roster), start=made_up.digest)
    after = goes_on(before, plan, [made_up, *[None] * (OLD - 1)])
    after.run()
    assert failure_word(after.server.failed) == "not-agreed"
    for client in after.clients[1:]:
        assert client.state is not None
        assert client.state.place == Place(0, 0)
        assert "not-agreed" in {one.reason for one in client.refusals.first}


def test_a_newcomer_whose_plan_ends_in_vain_waits_for_no_models() -> None:
    """Nobody is left to give them; and it answers nothing under that plan any more."""
    before = closed("masked")
    made = goes_on(before)
    came = replace(made, clients=made.clients[OLD - 1 :])
    came.run()
    assert failure_word(came.server.failed) == "too-few"
    assert all(client.over for client in came.clients)
    for client in came.clients[1:]:
        assert client.state is not None
        assert client.state.place == Place(0, 0)
        end = came.server._called[client.name]
        assert list(client.receive(end)) == []
        (call,) = came.server._announce(Phase.BEGIN, [client.name], {"attempt": 1, "left_out": []})
        client.receive(call.data)
        assert client._progress.begun is None
        assert "older-place" in {one.reason for one in client.refusals.first}


def test_whoever_stays_keeps_the_number_under_which_its_ledger_counts() -> None:
    assert numbered("bd", "abcd") == ("b", "d", "a", "c")
    assert numbered("abc", "acd") == ("a", "d", "c")
    with pytest.raises(ValueError, match=r"^b, d$"):
        numbered("abcd", "ac")


def test_a_federation_is_closed_where_others_can_join() -> None:
    """In a round in which answers stand still, whoever is new would show by a difference."""
    program = Toy(OLD, ROUNDS)
    sketching = Still(OLD, ROUNDS)
    assert [begins_anew(sketching, Place(0, n)) for n in (0, 1, ROUNDS)] == [True, False, False]
    assert [begins_anew(program, Place(0, n)) for n in (0, 1, ROUNDS)] == [True, True, False]
    made = made_toy(OLD, rounds=ROUNDS)
    made.server._schedule = sketching
    made.server.closing = lambda: True
    made.run()
    assert made.server.place == Place(0, ROUNDS)
    plan = plan_after(closed("masked"), roster_of_all(closed("masked").roster))
    with pytest.raises(RefusedError, match="nobody can join in that round"):
        Replica(plan, sketching, Shared())


@pytest.mark.parametrize("protection", KINDS)
def test_a_federation_that_has_ended_calls_no_round(protection: str) -> None:
    """Else its server could have answers under this plan, and again under the one that follows."""
    made = closed(protection)
    made.server._progress.number += 1
    names = [client.name for client in made.clients]
    calls = made.server._announce(Phase.BEGIN, names, {"attempt": 1, "left_out": []})
    for client, call in zip(made.clients, calls, strict=True):
        begun = client._progress.begun
        client.receive(call.data)
        assert client._progress.begun == begun
        assert [one.reason for one in client.refusals.first] == ["older-place"]


LIES = {
    "security.min_pool_clients": {"security": {"min_pool_clients": 4}},
    "security.threshold": {"security": {"threshold": 6}},
    "privacy.epsilon": {"privacy": {"epsilon": 99.0}},
    "pools.rounds": {"pools": {"rounds": 50}},
}


@pytest.mark.parametrize("name", LIES)
def test_a_plan_with_other_settings_goes_on_from_nothing(name: str) -> None:
    before = closed("masked")
    plan = plan_after(before, roster_of_all(before.roster))
    tables = {one: {**plan.configuration[one], **more} for one, more in LIES[name].items()}
    lied = replace(plan, configuration={**plan.configuration, **tables})
    assert objection(before.plan, plan) is None
    assert name in str(objection(before.plan, lied))
    after = goes_on(before, lied)
    after.run()
    assert after.server.place == before.server.place
    assert all(client.state is None for client in after.clients[:OLD])


def test_a_plan_that_follows_another_one_is_refused() -> None:
    before = closed("masked")
    plan = plan_after(before, roster_of_all(before.roster))
    assert plan.follows is not None
    other = replace(plan, follows=replace(plan.follows, plan=bytes(32)))
    assert "does not go on from" in str(objection(before.plan, other))
    swapped = (plan.clients[1], plan.clients[0], *plan.clients[2:])
    assert "other numbers" in str(objection(before.plan, replace(plan, clients=swapped)))
    assert "other publish_models" in str(objection(before.plan, replace(plan, publish_models=True)))


def test_a_plan_says_whom_it_follows() -> None:
    plan = plan_after(closed("masked"), roster_of_all(closed("masked").roster))
    assert Plan.decode(plan.encode()) == plan
    assert b"follows" not in replace(plan, follows=None).encode()
    other = replace(plan, follows=replace(plan.follows, place=Place(0, 1)))
    assert other.digest != plan.digest
