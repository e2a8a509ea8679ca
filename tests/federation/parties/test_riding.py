"""The set-up of the next round rides on the messages of the one that runs, in whole federations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from federation.parties.test_more_attempts import lying
from federation.parties.toy_federation import Made, Sampled, Short, expected, identities, make

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.queue import Tap
from secure_fl.federation.parties.party import Message
from secure_fl.federation.parties.server_flow import ServerFlow
from secure_fl.federation.state import State
from secure_fl.federation.wire import route

MASKED = [("masked", "clients"), ("bfv+masked", "clients"), ("bfv+masked", "authority")]


class Lockstep:
    """All messages take equally long, so that how often a server waits can be counted.

    What the server sends at one moment is answered by everybody before it hears anything.
    """

    def __init__(self, made: Made) -> None:
        self.made, self.waits = made, Counter[int]()
        self.parties = {party.name: party for party in made.parties}
        self.sent = list[tuple[str, str, bytes]]()

    def run(self) -> None:
        server, clients = self.made.server, {client.name for client in self.made.clients}
        words = [each for party in self.parties.values() for each in party.tick(0.0)]
        while words and not server.over:
            heard = [each for word in words for each in self._given("", word)]
            number, spoken = server.number, {each.to for each in heard}
            asked = [(each.to, answer) for each in heard for answer in self._given("server", each)]
            words = [answer for _, answer in asked]
            # an authority is no client, and whoever misses the last state asks when all is over
            self.waits[number] += not server.over and bool({name for name, _ in asked} & clients)
            assert spoken or not words

    def _given(self, sender: str, message: Message) -> list[Message]:
        data = bytes(message.data)
        self.sent.append((sender, message.to, data))
        return self.parties[message.to].receive(data)


def waits(made: Made) -> list[int]:
    """Of each round that was begun, how often the server waited for clients."""
    lockstep = Lockstep(made)
    lockstep.run()
    assert made.server.failed is None
    return [lockstep.waits[number] for number in sorted(lockstep.waits) if number >= 0]


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_a_server_waits_for_clients_five_times_from_the_second_round_on(
    protection: str, key_holder: str
) -> None:
    """An authority opens sums where clients would have to: once less then."""
    made, digests = make(4, protection, key_holder, rounds=4, rotation=4), key_holder == "clients"
    assert waits(made) == [7 + digests, *[4 + digests] * 3]
    for pools in made.pools():
        torch.testing.assert_close(pools, expected(range(4), 4), rtol=0, atol=0)


def test_nothing_is_prepared_for_another_key() -> None:
    """Each second round has one of its own, which is made before it is called."""
    made, prepared = make(4, "bfv+masked", rounds=5, rotation=2), set[int]()
    lockstep = Lockstep(made)
    lockstep.run()
    for _, _, data in lockstep.sent:
        header = route(data)
        prepared |= {header.round} if header.phase == Phase.PREPARE else set()
    assert prepared == {1, 3}
    assert lockstep.waits == {-1: 2, 0: 8, 1: 6, 2: 8, 3: 6, 4: 8}


def test_in_the_open_and_after_the_last_round_nothing_is_prepared() -> None:
    for made, found in (
        (make(4, "plain", rounds=3), [3, 3, 3]),
        (make(4, "masked", rounds=1), [8]),
    ):
        lockstep = Lockstep(made)
        lockstep.run()
        assert [lockstep.waits[number] for number in sorted(lockstep.waits)][1:] == found
        assert Phase.PREPARE not in {route(data).phase for _, _, data in lockstep.sent}


def test_groups_tell_each_other_in_two_waits_more() -> None:
    assert waits(make(9, "masked", rounds=3, groups=4)) == [10, 7, 7]


def test_who_is_not_in_the_round_prepares_the_next_one_too() -> None:
    """Who missed a round asks for the models first, which takes two waits."""
    assert waits(make(6, "masked", program=Sampled(6, 4))) == [8, 7, 7, 7]


def test_what_was_prepared_of_a_step_that_ends_is_thrown_away() -> None:
    """Its number too; round 2 was the third one of the first step."""
    lockstep = Lockstep(make(4, "masked", program=Short(4)))
    lockstep.run()
    assert lockstep.made.server.failed is None
    assert [lockstep.waits[number] for number in (0, 1, 2, 3, 4)] == [8, 5, 0, 8, 5]


def silent_from(name: str, number: int) -> Callable[[Made], Tap]:
    """A client of which nothing is heard from the call of a round on."""

    def of(made: Made) -> Tap:
        def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
            return None if made.server.number >= number and name in (sender, to) else data

        return tap

    return of


def hears_no_proposal(made: Made) -> Tap:
    """One client is never told to prepare."""

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        return None if route(data).phase == Phase.PREPARE and to == "client-0002" else data

    return tap


def blames_one(made: Made) -> Tap:
    """In the first round somebody shows other shares, so that it is tried again."""
    return lying(made, Phase.OPEN_COUNTS)


SCENES: dict[str, tuple[dict[str, Any], Callable[[Made], Tap]]] = {
    "nothing happens": ({"clients": 5}, lambda made: lambda sender, to, data: data),
    "one falls silent": ({"clients": 5}, silent_from("client-0002", 1)),
    "one falls silent at first": ({"clients": 5}, silent_from("client-0002", 0)),
    "one prepares nothing": ({"clients": 5}, hears_no_proposal),
    "an attempt fails": ({"clients": 7}, blames_one),
    "other cohorts": ({"clients": 6, "program": Sampled(6, 4)}, hears_no_proposal),
    "a step ends": ({"clients": 5, "program": Short(5)}, silent_from("client-0002", 1)),
    "groups": ({"clients": 9, "groups": 4}, silent_from("client-0002", 1)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_the_models_are_those_of_rounds_that_nobody_prepared(
    scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rules, tap), found = SCENES[scene], list[set[State | None]]()
    people = identities(rules["clients"])
    for riding in (True, False):
        if not riding:
            monkeypatch.setattr(ServerFlow, "_prepare", lambda _: [])
        made = make(protection="masked", people=people, **({"rounds": 4} | rules))
        made.run(tap(made))
        assert made.server.failed is None
        heard = [client for client in made.clients if client.over]
        assert len(heard) >= len(made.clients) - 1
        found.append({client.state for client in heard})
    assert len(found[0]) == 1
    assert found[0] == found[1]
