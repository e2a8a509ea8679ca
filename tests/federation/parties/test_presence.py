"""Whether a client that fell silent is called again: by its own signature alone, once for each
round in which it fell silent.
"""

from __future__ import annotations

import pytest
from federation.parties.trials import KINDS, Trial, chunk_of, trial

from secure_fl.crypto.envelope import Phase, head_bytes, read_header
from secure_fl.crypto.identities import Identity
from secure_fl.engines.queue import Tap
from secure_fl.federation.wire import NO_PLAN, Wire, route

VICTIM = "client-0003"


def dead_from_the_call(one: Trial, late: list[bytes]) -> Tap:
    """Nothing of the victim arrives from its first message of a sum on, which is kept."""

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase = chunk_of(data)[0]
        if who == VICTIM and phase < Phase.HELLO and phase != Phase.KEYS:
            late.append(bytes(data))
            one.made.lost.add(VICTIM)
            return None
        return data

    return tap


def left_out(one: Trial) -> list[bool]:
    """Of each call, whether it went out without the victim."""
    return [VICTIM in names for _, _, names in one.calls]


def with_stranger(one: Trial, said: list[bytes], late: list[bytes], rounds: set[int]) -> Tap:
    """In these rounds a stranger gives the server what is in `said`."""
    dead = dead_from_the_call(one, late)

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if who == "server" and route(data).phase == Phase.BEGIN and route(data).round in rounds:
            rounds.discard(route(data).round)
            for each in said:
                assert one.made.server.receive(each) == []
        return dead(who, to, data)

    return tap


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_bytes_that_it_did_not_sign_call_nobody(protection: str, key_holder: str) -> None:
    one, late, said = trial(protection, key_holder, rounds=4), list[bytes](), list[bytes]()
    forger = Wire(Identity.generate(VICTIM), one.made.roster)
    forger.plan = one.made.plan.digest.hex()
    places = {"place": [0, 0], "state": "00" * 32, "head": "00" * 32}
    forged = [forger.sign(Phase.WANT, {"place": [0, 0]}), forger.sign(Phase.JOIN, places)]
    dead = with_stranger(one, said, late, {1, 2})

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if late and not said:
            start = 0 if protection != "plain" else 12
            at = start + head_bytes(read_header(late[0][start:])) - 1
            said.extend([late[0][:at] + bytes([late[0][at] ^ 1]) + late[0][at + 1 :], *forged])
        return dead(who, to, data)

    one.run(tap)
    one.check(absent=[3])
    assert len(said) == 3
    assert left_out(one) == [False, True, True, True]


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_what_it_signed_calls_it_once(protection: str, key_holder: str) -> None:
    """A late message is its own; whoever sends it again in later rounds gains nothing."""
    one, late = trial(protection, key_holder, rounds=6), list[bytes]()
    one.run(with_stranger(one, late, late, {1, 2, 3, 4, 5}))
    one.check(absent=[3])
    assert left_out(one) == [False, True, False, True, True, True]


def test_a_greeting_calls_nobody() -> None:
    """It names no round, so it may be an old one; it is answered with the plan."""
    one, late, greeting = trial("masked", rounds=3), list[bytes](), list[bytes]()
    dead = dead_from_the_call(one, late)

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if who == VICTIM and header.parameters == NO_PLAN:
            greeting.append(bytes(data))
        if who == "server" and header.phase == Phase.BEGIN and header.round == 1:
            [answer] = one.made.server.receive(greeting[0])
            assert route(answer.data).phase == Phase.PLAN
        return dead(who, to, data)

    one.run(tap)
    one.check(absent=[3])
    assert left_out(one) == [False, True, True]
