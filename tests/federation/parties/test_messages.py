"""Whatever a party is sent has a defined outcome: an answer, a signed refusal, or silence."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from federation.parties.faulty import Wrapped
from federation.parties.toy_federation import Made, make

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.wire import Wire, route


def server_after(made: Made, messages: list[tuple[str, bytes]], phase: Phase) -> None:
    """Run until a first message of this phase goes to the server; all that were sent are kept."""

    class StopError(Exception):
        pass

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        messages.append((to, bytes(data)))
        if to == "server" and route(data).phase == phase:
            raise StopError
        return data

    with pytest.raises(StopError):
        made.run(tap)


def test_strangers_and_forgers_are_silence_and_a_record() -> None:
    made, sent = make(4, "masked"), list[tuple[str, bytes]]()
    server_after(made, sent, Phase.ADVERTISE)
    keys = next(data for to, data in sent if route(data).phase == Phase.ADVERTISE)
    stranger = Wire(Identity.generate("client-0009"), made.roster)
    forger = Wire(Identity.generate("client-0001"), made.roster)
    stranger.plan = forger.plan = made.plan.digest.hex()
    want = {"place": [0, 0]}
    before = made.server.refusals.counts.copy()
    for data, reason in (
        (stranger.sign(Phase.HELLO, {}), "unknown-client"),
        (forger.sign(Phase.WANT, want), "wrong-signature"),
        (keys[:-5], "truncated"),
        (bytes([keys[0] ^ 1]) + keys[1:], "malformed"),
        (keys[:-1] + bytes([keys[-1] ^ 1]), "bit-flipped"),
        (made.signed, "wrong-phase"),
        (b"", "truncated"),
    ):
        assert made.server.receive(data) == []
        before[reason] += 1
        assert made.server.refusals.counts == before, reason
    assert made.server.receive(keys) == []
    assert made.server.receive(keys) == []
    before["replayed"] += 1
    assert made.server.refusals.counts == before


class Twice(Wrapped):
    """A party that is told everything twice, and what it was told long ago."""

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.told, self.said = list[bytes](), set[bytes]()

    def receive(self, data: bytes | memoryview) -> list[Message]:
        self.told.append(bytes(data))
        sent = self.party.receive(data)
        self.said |= {bytes(message.data) for message in sent}
        for again in (data, self.told[len(self.told) // 2]):
            same = route(again).phase in (Phase.PLAN, Phase.MAKE, Phase.GIVE)
            for message in self.party.receive(again):
                refused = route(message.data).phase == Phase.REFUSE
                assert same or refused or bytes(message.data) in self.said
        return sent


def test_late_and_duplicate_messages_change_nothing() -> None:
    """Every message is delivered twice, and once more much later: the models are the same."""
    made = make(4, "masked", rounds=2)
    made.clients = [Twice(client) for client in made.clients]  # type: ignore[misc]
    made.run()
    assert made.server.failed is None
    states = {twice.party.state for twice in made.clients}  # type: ignore[attr-defined]
    assert len(states) == 1
    assert next(iter(states)).facts["survivors"] == [4, 4]


def mutants(data: bytes, coins: random.Random) -> Iterator[bytes]:
    """The bytes with some of them changed, cut off, or repeated."""
    for _ in range(12):
        at, change = coins.randrange(len(data)), coins.randrange(1, 256)
        yield data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    yield data[: coins.randrange(len(data))]
    yield data + data[: coins.randrange(64)]


@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_no_bytes_raise_or_are_answered_by_more_than_a_refusal(key_holder: str) -> None:
    made, sent = make(4, "bfv+masked", key_holder, rounds=1), list[tuple[str, bytes]]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        sent.append((to, bytes(data)))
        return data

    made.run(tap)
    kinds = {(to.split("-")[0], route(data).phase): (to, data) for to, data in sent}
    assert len(kinds) > 20
    parties, coins = {party.name: party for party in made.parties}, random.Random(7)
    said = {data for _, data in sent}
    fresh = make(4, "bfv+masked", key_holder, rounds=1, people=made.identities)
    parties |= {fresh.clients[1].name: fresh.clients[1]}
    for to, data in kinds.values():
        for mutant in mutants(data, coins):
            for answer in parties[to].receive(mutant):
                refused = route(answer.data).phase == Phase.REFUSE
                assert refused or bytes(answer.data) in said
    assert made.server.failed is None
    assert all(client.state == made.clients[0].state for client in made.clients)


def test_a_flood_fills_no_memory() -> None:
    made = make(3, "masked")
    for _ in range(200):
        made.server.receive(b"x")
        made.clients[0].receive(b"x")
    assert len(made.server.refusals.first) == 64
    assert made.server.refusals.counts == {"truncated": 200}
    assert made.clients[0].refusals.counts == {"truncated": 200}
