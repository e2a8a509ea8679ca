"""A client that seals something else than the models for others stops nobody.

The server cannot look into what is sealed: who cannot open it says so, and another is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from federation.parties.faulty import resigned
from federation.parties.toy_federation import Made, make

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.sealing import seal_with
from secure_fl.engines.queue import Tap
from secure_fl.federation.parties import replica
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.wire import Wire, read_place, route

Lie = Callable[[Made, str, bytes], bytes]


def apart(made: Made) -> Made:
    """Nobody takes a state from anybody's memory."""
    for client in made.clients:
        client._shared = Shared()
    return made


def noise(made: Made, name: str, data: bytes) -> bytes:
    """A box that nobody opens."""
    return resigned(made, name, data, lambda body: body[:-30] + bytes(30))


def nonsense(made: Made, name: str, data: bytes) -> bytes:
    """A box of this state that opens, and has something else in it."""
    wire = Wire(made.identities[name], made.roster)
    wire.plan = made.plan.digest.hex()
    facts = dict(wire.open(data, most=1 << 24, role="client").facts)
    place, digest = read_place(facts["place"]), bytes.fromhex(facts["state"])
    [client] = [one for one in made.clients if one.name == name]
    secret = client._seat.keyring.secret if client._seat else b""
    box = seal_with(secret, b"none", replica._context(made.plan, place, digest))
    return wire.sign(Phase.STATE, facts, box)


def lying(made: Made, phase: Phase, liars: set[str], lie: Lie) -> tuple[Tap, list[str]]:
    """A tap through which liars' boxes come; and who gave one, in order."""
    asked = list[str]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if route(data).phase != phase or sender == "server":
            return data
        asked.append(sender)
        return lie(made, sender, bytes(data)) if sender in liars else data

    return tap, asked


@pytest.mark.parametrize("count", [1, 3])
def test_a_false_box_of_a_groups_sum(count: int) -> None:
    """The sum is had from the next of the group, over all clients."""
    made = apart(make(8, "masked", rounds=2, groups=4))
    group = made.clients[0]
    liars = {client.name for client in made.clients[:count]}
    tap, asked = lying(made, Phase.PART, liars, noise)
    made.run(tap)
    assert made.server.failed is None
    assert liars & set(asked)
    assert all(client.over for client in made.clients)
    assert len({client.state.digest for client in made.clients if client.state}) == 1
    assert group.state is not None
    assert group.state.facts == {"survivors": [8, 8], "groups": [2, []]}


def test_nobody_is_stopped_by_a_client_that_blames_an_honest_one() -> None:
    """It is alone with what it says, so it goes without the sums, and the others go on."""
    made = apart(make(8, "masked", rounds=1, groups=4))
    liar, asked = made.clients[7].name, list[str]()
    wire = Wire(made.identities[liar], made.roster)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if header.phase == Phase.PART:
            asked.append(sender)
        if (sender, header.phase) != (liar, Phase.RESULT):
            return data
        facts: dict[str, Any] = {"plan": "", "about": "parts", "reason": "not-agreed"}
        facts |= {"problem": "", "blamed": asked[:1]}
        return wire.sign(Phase.REFUSE, facts, number=header.round)

    made.run(tap)
    assert made.server.failed is None
    assert len(asked) == 2  # one a group, and nobody again
    assert made.clients[0].over
    assert made.clients[0].state is not None
    assert made.clients[0].state.facts["survivors"] == [8]


@pytest.mark.parametrize("lie", [noise, nonsense])
def test_a_false_box_of_the_state(lie: Lie) -> None:
    """Who comes late has the state from the next holder; the liar is asked last from then on."""
    made = apart(make(7, "masked", rounds=5))
    late, slow = made.clients[6], made.clients[0]
    made.lost = {late.name}
    lied, asked = lying(made, Phase.STATE, {"client-0001"}, lie)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.phase, sender) == (Phase.UPLOAD, slow.name) and header.round in (1, 3):
            made.lost.clear()
            return None
        return lied(sender, to, data)

    made.run(tap)
    assert made.server.failed is None
    assert all(client.over for client in made.clients)
    assert len({client.state.digest for client in made.clients if client.state}) == 1
    assert asked == ["client-0001", "client-0002", "client-0002"]


def test_nobody_puts_a_state_in_anothers_place() -> None:
    """What nobody asked for is turned away, also from one who came to the state."""
    made = apart(make(7, "masked", rounds=2))
    late, slow, given = made.clients[6], made.clients[0], list[bytes]()
    made.lost = {late.name}

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.round, header.phase, sender) == (1, Phase.UPLOAD, slow.name):
            made.lost.clear()
            return None
        given.extend([bytes(data)] if header.phase == Phase.STATE and sender != "server" else [])
        return data

    made.run(tap)
    [honest], before = given, made.server._states.sealed
    assert before
    assert made.server.receive(noise(made, route(honest).sender, honest)) == []
    assert made.server._states.sealed == before
    assert made.server.refusals.counts["wrong-phase"] == 1
