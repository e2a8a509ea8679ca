"""A server that sends one client other sums than everybody else, and keeps it from noticing.

What would show it are the others' signed digests. So the server keeps them back, or lists none but
the client's own, and goes on with the client's state beside the others'. Each lie is told to
clients as they are, and to clients whose check was taken out, which must not find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from federation.muted import without_check
from federation.parties.faulty import resigned
from federation.parties.toy_federation import Made, make
from federation.parties.trials import chunk_of

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.client_round import ClientRound
from secure_fl.federation.wire import Wire
from secure_fl.secure_sum.framing import frames, unframe

APART = "client-0001"
KINDS = ["masked", "bfv+masked"]


def server_wire(made: Made) -> Wire:
    wire = Wire(made.identities["server"], made.roster)
    wire.plan = made.plan.digest.hex()
    return wire


def other_sums(body: bytes) -> bytes:
    """Sums of which the last field is another."""
    *blocks, last = [bytes(block) for block in unframe(body)]
    return frames([*blocks, bytes([last[0] ^ 1]) + last[1:]])


def told_apart(made: Made, alone: bool) -> list[str]:
    """What the client says whose first sums are others, and whose calls name its own state; of
    signed digests it is told none, or its own alone.
    """
    client, own = next(one for one in made.clients if one.name == APART), list[bytes]()

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase, chunk, number = chunk_of(data)
        if who == APART and phase == Phase.APPLY:
            own[:] = [bytes(data)]
        if (phase, chunk) == (Phase.APPLY, 1) and alone and own:
            claim = frames([own.pop()])
            for message in client.receive(resigned(made, "server", bytes(data), lambda _: claim)):
                made.server.receive(message.data)
        if who != "server" or to != APART:
            return data
        if (phase, chunk, number) == (Phase.APPLY, 0, 0):
            return resigned(made, "server", bytes(data), other_sums)
        if (phase, chunk) == (Phase.APPLY, 1):
            return None
        running = client._progress.round
        if phase in (Phase.BEGIN, Phase.END) and running is not None and running.next is not None:
            wire = server_wire(made)
            post = wire.open(data, most=1 << 20, role="server")
            facts = dict(post.facts) | {"state": running.next.digest.hex()}
            return wire.sign(phase, facts, post.rest, number=number)
        return data

    made.run(tap)
    states = {one.state.digest for one in made.clients if one.state and one.name != APART}
    assert client.state is not None
    assert len(states) == 1
    if client.state.digest not in states | {made.plan.start}:
        return [*words(made), "was led apart"]
    return words(made)


def words(made: Made) -> list[str]:
    return [said["reason"] for said in made.server.said if said["sender"] == APART]


def kept_back() -> list[str]:
    return told_apart(make(5, "masked", rounds=3), False)


def its_own_alone() -> list[str]:
    return told_apart(make(5, "masked", rounds=3), True)


def results_alone() -> list[str]:
    """Where clients are summed in groups, it is told of no result but its own."""
    made = make(8, "masked", rounds=2, groups=4)

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if who != "server" or to != APART or chunk_of(data)[0] != Phase.RESULTS:
            return data
        wire = server_wire(made)
        post = wire.open(data, most=1 << 20, role="server")
        own = [one for one in unframe(post.rest) if read_header(one).sender == APART]
        return wire.sign(Phase.RESULTS, {}, frames(own), number=post.header.round)

    made.run(tap)
    return words(made)


LIES: dict[str, tuple[Callable[[], list[str]], str, Any, str, str]] = {
    "digests are kept back": (kept_back, "forked", FederationClient, "_settle", "running.agreed"),
    "its own digest alone": (its_own_alone, "not-agreed", ClientRound, "receive", "check_enough("),
    "its own result alone": (
        results_alone,
        "not-agreed",
        ClientRound,
        "take_results",
        "check_enough(",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_client_is_not_led_apart(lie: str) -> None:
    tell, word, *_ = LIES[lie]
    found = tell()
    assert found
    assert found[0] == word
    assert "was led apart" not in found


@pytest.mark.parametrize("lie", LIES)
def test_without_its_check_it_is(lie: str) -> None:
    tell, word, where, name, check = LIES[lie]
    with without_check(where, name, check):
        try:
            found = tell()
        except Exception:  # it went on, and failed somewhere else
            return
    assert found[:1] != [word]


@pytest.mark.parametrize("protection", KINDS)
def test_a_client_that_missed_the_digests_asks_for_the_state(protection: str) -> None:
    """Nobody lies, a message is lost: it takes what the others signed, and goes on."""
    made, asked = make(5, protection, rounds=2), list[str]()

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase, chunk, number = chunk_of(data)
        if phase == Phase.WANT:
            asked.append(who)
        lost = (phase, chunk, number) == (Phase.APPLY, 1, 0) and to == APART and who == "server"
        return None if lost else data

    made.run(tap)
    assert asked == [APART]
    assert made.server.failed is None
    assert len({one.state.digest for one in made.clients if one.state}) == 1
    assert all(one.over for one in made.clients)


def test_a_group_whose_sum_too_few_signed_is_left_out() -> None:
    """Others could not take its sum; where one of three is silent at the end, all three are."""
    made = make(6, "masked", rounds=2, groups=3)

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase, _, number = chunk_of(data)
        lost = phase in (Phase.APPLY, Phase.RESULT) and (who, number) == ("client-0005", 0)
        return None if lost else data

    made.run(tap)
    assert made.server.failed is None
    states = [one.state for one in made.clients if one.state is not None]
    assert len({state.digest for state in states}) == 1
    assert states[0].facts["survivors"] == [3, 6]
    assert made.server.said == []
