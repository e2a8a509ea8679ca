"""The set-up of the next round rides on the messages of the one that runs, in whole federations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from federation.parties.toy_federation import Made, expected, make

from secure_fl.crypto.envelope import Phase
from secure_fl.federation.party import Message
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
            # an authority is no client
            self.waits[number] += bool({name for name, _ in asked} & clients)
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
