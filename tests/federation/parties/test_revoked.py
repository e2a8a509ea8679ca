"""Whose site was revoked is waited for no longer; all others are, as long as ever."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parties.kills import Federation, KilledError, Kind, lived
from federation.parties.toy_federation import Made, Toy, expected, make

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.federation.parties.server_store import KeptServer
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import RoundEntry
from secure_fl.federation.verify.rounds import Rounds
from secure_fl.federation.wire import route
from secure_fl.secure_sum.messages import RoundReason

VICTIM, SLOW = "client-0003", "client-0002"
SUM = (Phase.ADVERTISE, Phase.SHARE, Phase.UPLOAD, Phase.AGREE)
OPENED = (Phase.OPEN_COUNTS, Phase.OPEN_POOLS, Phase.APPLY)
GLANCE, ANSWER = 0.5, 120.0
"""Seconds after which a server is told the time, and that it waits for what is not trained."""


class Told(Here):
    """A server that is told the time twice a second, as a driver does."""

    def __init__(self, made: Made) -> None:
        super().__init__([made.server])
        self._server, self._told = made.server, 0.0

    @property
    def due(self) -> float | None:
        due = self._server.due
        return None if due is None else min(due, self._told + GLANCE)

    def tick(self, now: float) -> None:
        self._told = now
        self._sent += [(self._server.name, each) for each in self._server.tick(now)]


def run(made: Made, tap: Tap) -> float:
    """To the end; how many seconds that took, of a clock that only waiting moves."""

    def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        return None if {sender, to} & made.lost else tap(sender, to, data)

    queue = Queue([Told(made), Here(made.parties[1:])], "server", tap=heard)
    queue.run(most=100_000)
    return queue.now


def revoked_at(
    made: Made, phase: Phase, *, number: int = 0, also: Callable[[], object] = lambda: None
) -> Tap:
    """Its site is revoked when the victim says something of that phase, which never comes."""

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (sender, header.phase) == (VICTIM, phase) and header.round == number:
            made.lost.add(VICTIM)
            made.server.revoked = lambda: frozenset({VICTIM})
            also()
            return None
        return data

    return tap


def ended_alike(made: Made, survivors: Collection[int]) -> None:
    assert made.server.failed is None
    states = {client.state for client in made.clients if client.name not in made.lost}
    assert len(states) == 1
    [state] = states
    assert state is not None
    assert state.facts["survivors"] == list(survivors)


@pytest.mark.parametrize("phase", [*SUM, *OPENED])
@pytest.mark.parametrize("kind", [("masked", "clients"), ("bfv+masked", "authority")])
def test_nobody_waits_for_a_revoked_site_in_any_phase(kind: tuple[str, str], phase: Phase) -> None:
    if (phase, kind[1]) == (Phase.APPLY, "authority"):
        pytest.skip("clients apply nothing there")
    made = make(4, *kind, rounds=2)
    assert run(made, revoked_at(made, phase)) <= 2.0
    first = 3 if phase <= Phase.UPLOAD else 4
    ended_alike(made, [first, 3])


@pytest.mark.parametrize("phase", [Phase.PART, Phase.RESULT])
def test_nor_where_groups_tell_each_other(phase: Phase) -> None:
    """Who was asked for its group's sum is replaced at once."""
    for name in ("client-0000", "client-0004"):
        made = make(8, "bfv+masked", rounds=1, groups=4)

        def tap(
            sender: str, to: str, data: bytes | memoryview, made: Made = made, name: str = name
        ) -> bytes | memoryview | None:
            if sender == name and route(data).phase == phase:
                made.lost.add(name)
                made.server.revoked = lambda: frozenset({name})
                return None
            return data

        assert run(made, tap) <= 2.0
        assert made.server.failed is None


def test_nor_for_whom_keys_or_the_state_were_asked() -> None:
    made = make(5, "bfv+masked", rounds=2)
    maker = made.plan.key_makers[0]

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if sender == maker and route(data).phase in (Phase.KEYS, Phase.SECRET):
            made.lost.add(maker)
            made.server.revoked = lambda: frozenset({maker})
            return None
        return data

    assert run(made, tap) <= 2.0
    assert made.server.failed is None


def test_nor_before_it_has_joined() -> None:
    made = make(5, "masked", rounds=1)
    made.lost, made.server.revoked = {VICTIM}, lambda: frozenset({VICTIM})
    assert run(made, lambda sender, to, data: data) <= 2.0
    ended_alike(made, [4])


def test_others_are_waited_for_as_long_as_ever() -> None:
    """Who is only silent has until the deadline, though somebody else was revoked meanwhile."""
    made = make(6, "masked", rounds=1)
    tap = revoked_at(made, Phase.AGREE, also=lambda: made.lost.add(SLOW))
    assert ANSWER <= run(made, tap) <= ANSWER + 2.0
    made = make(6, "masked", rounds=1)
    tap = revoked_at(made, Phase.AGREE)
    assert run(made, tap) <= 2.0


def test_without_a_revocation_a_silent_client_takes_the_whole_deadline() -> None:
    made = make(4, "masked", rounds=1)
    tap = revoked_at(made, Phase.AGREE, also=lambda: setattr(made.server, "revoked", frozenset))
    assert run(made, tap) >= ANSWER


def test_too_few_are_too_few_at_once() -> None:
    """No minimum is lowered: the federation ends, with the reason that it has at a deadline."""
    made = make(4, "masked")

    def also() -> None:
        made.lost.add(SLOW)
        made.server.revoked = lambda: frozenset({VICTIM, SLOW})

    assert run(made, revoked_at(made, Phase.ADVERTISE, also=also)) <= 2.0
    assert made.server.failed is not None
    assert made.server.failed.reason == RoundReason.TOO_FEW  # type: ignore[attr-defined]


def test_a_site_that_is_let_in_again_takes_part() -> None:
    made = make(4, "masked", rounds=1)
    made.lost, made.server.revoked = {VICTIM, SLOW}, lambda: frozenset({VICTIM})

    class Later(Told):
        def tick(self, now: float) -> None:
            if now > 10.0:
                made.lost.clear()
                made.server.revoked = frozenset
            super().tick(now)

    def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        return None if {sender, to} & made.lost else data

    Queue([Later(made), Here(made.parties[1:])], "server", tap=heard).run(most=100_000)
    ended_alike(made, [4])


@pytest.mark.parametrize("phase", [Phase.JOIN, *SUM, *OPENED])
def test_who_is_waited_for_is_named_in_each_phase(phase: Phase) -> None:
    """The one alone who has not answered, when everybody else has."""
    made, seen = make(4, "masked", rounds=1), dict[str, frozenset[str]]()

    class Seeing(Told):
        def tick(self, now: float) -> None:
            seen.update({each: names for each, names in made.server.waits.items() if names})
            super().tick(now)

    def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if sender == SLOW and route(data).phase == phase:
            made.lost.add(SLOW)
        return None if {sender, to} & made.lost else data

    Queue([Seeing(made), Here(made.parties[1:])], "server", tap=heard).run(most=100_000)
    assert seen[phase.name.lower()] == {SLOW}
    assert made.server.waits == {}


class Without(Federation):
    """Whose servers, of every life, know that the victim's site is revoked."""

    def server(self) -> KeptServer:
        made = super().server()
        made.revoked = lambda: frozenset({VICTIM})
        return made

    @property
    def there(self) -> list[str]:
        return [name for name in self.names if name != VICTIM]

    def check(self) -> None:
        """Each round was called once, without the victim, and the record verifies."""
        assert Rounds().read(self.lines()).findings == []
        rounds = [line.entry for line in self.lines() if isinstance(line.entry, RoundEntry)]
        assert all(VICTIM in entry.left_out for entry in rounds)
        assert [entry.attempt for entry in rounds] == [1, 1]


@pytest.mark.parametrize("protection", ["masked", "bfv+masked"])
def test_a_server_that_is_killed_goes_on_without_them(tmp_path: Path, protection: str) -> None:
    made = Without(tmp_path, Kind(protection, program=Toy(5, 2)))
    makes: dict[str, Callable[[], Any]] = {"server": made.server}
    makes |= {name: partial(made.client, name) for name in made.there}
    hosts, killed = lived(makes, 0, {"server": 6})
    parties = [host.party for host in hosts]
    for party in parties:
        party.folder.close()
    assert (killed > 0, parties[0].failed) == (True, None)
    for client in parties[1:]:
        pools = client.state.tensors["pools"]
        torch.testing.assert_close(pools, expected([0, 1, 2, 4], 2), rtol=0, atol=0)
    made.check()


def test_a_call_that_nobody_heard_is_made_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that was killed when it had written whom it calls to its second round; the victim
    had joined.
    """
    made = Without(tmp_path, Kind("masked", program=Toy(5, 2)))
    honest, written = Transcript.append, list[str]()

    def append(self: Transcript, word: str, facts: Any, evidence: Any = ()) -> bytes:
        head = honest(self, word, facts, evidence)
        written.append(word)
        if written.count("round") == 2:
            raise KilledError
        return head

    clients = [made.client(name) for name in made.names]
    with monkeypatch.context() as patched:
        patched.setattr(Transcript, "append", append)
        server = made.server()
        assert server.tick(0.0) == []  # from now on it knows
        with pytest.raises(KilledError):
            Queue([Here([server]), Here(clients)], "server").run()
    server.folder.close()
    again = made.server()
    Queue([Here([again]), Here(clients)], "server").run()
    for party in (again, *clients):
        party.folder.close()
    assert again.failed is None
    made.check()
