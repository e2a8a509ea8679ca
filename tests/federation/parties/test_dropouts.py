"""Who falls silent, and when: the round goes on without them, or ends with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from federation.parties.toy_federation import Made, expected, make

from secure_fl.crypto.envelope import Phase
from secure_fl.federation.parties.client_round import forked
from secure_fl.federation.parties.party import failure_word
from secure_fl.federation.wire import route
from secure_fl.secure_sum.messages import RoundReason

SUM = [
    Phase.ADVERTISE,
    Phase.SHARE,
    Phase.UPLOAD,
    Phase.AGREE,
    Phase.OPEN_COUNTS,
    Phase.OPEN_POOLS,
    Phase.APPLY,
]


def silent_from(made: Made, name: str, phase: Phase, number: int = 0) -> object:
    """A tap through which nothing of this client comes from a phase of a round on."""

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if sender == name and header.round == number and header.phase == phase:
            made.lost.add(name)
            return None
        return data

    return tap


@pytest.mark.parametrize("phase", SUM)
@pytest.mark.parametrize(
    ("protection", "key_holder"), [("masked", "clients"), ("bfv+masked", "authority")]
)
def test_a_client_that_falls_silent_is_done_without(
    phase: Phase, protection: str, key_holder: str
) -> None:
    if phase == Phase.APPLY and key_holder == "authority":
        pytest.skip("clients apply nothing there")
    made = make(4, protection, key_holder, rounds=2)
    made.run(silent_from(made, "client-0003", phase))  # type: ignore[arg-type]
    assert made.server.failed is None
    states = {client.state.digest for client in made.clients[:3] if client.state}
    assert len(states) == 1
    state = made.clients[0].state
    assert state is not None
    first = 3 if phase <= Phase.UPLOAD else 4
    assert state.facts["survivors"] == [first, 3]


def test_too_few_end_the_federation_for_everybody() -> None:
    made = make(4, "masked")
    made.lost = {"client-0002", "client-0003"}
    made.run()
    assert made.server.failed is not None
    assert made.server.failed.reason == RoundReason.TOO_FEW  # type: ignore[attr-defined]


def test_the_authority_falls_silent() -> None:
    made = make(4, "bfv+masked", "authority")
    made.run(silent_from(made, "authority", Phase.OPEN_COUNTS))  # type: ignore[arg-type]
    assert made.server.failed is not None


def test_who_comes_late_takes_the_sealed_state_and_goes_on() -> None:
    """One is not there at first, another's upload is lost on the way: both have missed a state."""
    made = make(7, "masked", rounds=4)
    late, slow = made.clients[6], made.clients[0]
    made.lost, sealed = {late.name}, list[str]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        sealed.extend([to] if header.phase == Phase.STATE and sender == "server" else [])
        if (header.round, header.phase, sender) == (1, Phase.UPLOAD, slow.name):
            made.lost.clear()
            return None
        return data

    made.run(tap)
    assert made.server.failed is None
    assert sorted(sealed) == [slow.name, late.name]
    assert all(client.over for client in made.clients)
    assert {client.state for client in made.clients} == {made.clients[1].state}
    assert made.clients[1].state is not None
    assert made.clients[1].state.facts["survivors"] == [6, 5, 7, 7]


def test_groups_are_summed_apart_and_everybody_gets_all_of_them() -> None:
    for protection, key_holder in (("masked", "clients"), ("bfv+masked", "authority")):
        made = make(8, protection, key_holder, rounds=2, groups=4)
        made.run()
        assert made.server.failed is None
        assert made.clients[0].state is not None
        assert made.clients[0].state.facts["groups"] == [2, []]
        for pools in made.pools():
            torch.testing.assert_close(pools[0], expected(range(8), 2)[0])


@pytest.mark.parametrize("name", ["client-0000", "client-0004"])
@pytest.mark.parametrize("phase", [Phase.PART, Phase.RESULT])
@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_a_client_dies_after_its_group_was_opened(key_holder: str, phase: Phase, name: str) -> None:
    """Who was asked for the group's sum, and another: the sum is had from somebody else."""
    made = make(8, "bfv+masked", key_holder, rounds=2, groups=4)
    made.run(silent_from(made, name, phase))  # type: ignore[arg-type]
    assert made.server.failed is None
    alive = [client for client in made.clients if client.name not in made.lost]
    assert all(client.over for client in alive)
    assert len({client.state for client in alive}) == 1
    assert alive[0].state is not None
    assert alive[0].state.facts["survivors"] == [8, 8 - len(made.lost)]


@pytest.mark.parametrize(
    ("refusing", "silent", "word"),
    [(1, 1, "too-few"), (1, 2, "too-few"), (2, 0, "forked"), (2, 1, "forked")],
)
def test_the_reason_is_of_those_who_are_missing(refusing: int, silent: int, word: str) -> None:
    """Not that of one who left earlier, where others went without a word."""
    made = make(5, "masked")

    def refuse(releases: object) -> None:
        raise forked("another history", "of a test")

    for client in made.clients[:refusing]:
        client._site = replace(client._site, admit=refuse)
    quiet = {f"client-{number:04d}" for number in range(5 - silent, 5)}

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        return None if sender in quiet and route(data).phase == Phase.UPLOAD else data

    made.run(tap)
    assert failure_word(made.server.failed) == word
