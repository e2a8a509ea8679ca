"""Two rounds side by side, one of which is prepared: they cost each other nothing."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.riding import KilledError, Riding
from secure_sum.round_helpers import make_vectors, sum_block
from secure_sum.test_secrecy_of_rounds import envelopes
from secure_sum.two_rounds import ServerRounds, claimed_round

from secure_fl.crypto.envelope import read_header
from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum import store
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.state import RoundState, state_context
from secure_fl.secure_sum.steps import ClientStep, Message, Step
from secure_fl.secure_sum.store import FolderStore

SHAPE = BlockShape(pools=2, width=4)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def check(riding: Riding, opened: Opened, number: int, names: Sequence[str]) -> None:
    vectors = made(riding, number)
    assert opened.survivors == len(names)
    for block, found in ((0, opened.head), (2, opened.pools[1])):
        np.testing.assert_array_equal(found, sum_block(SHAPE, vectors, names, block))


def made(riding: Riding, number: int) -> dict[str, BlockVector]:
    return make_vectors(SHAPE, dict.fromkeys(riding.federation.clients, 1), seed=number)


def test_cohorts_may_differ_from_round_to_round(tmp_path: Path) -> None:
    riding = Riding.of(tmp_path, SHAPE, clients=6)
    names = list(riding.clients)
    cohorts = [tuple(names[:4]), tuple(names[2:]), (names[0], *names[3:]), tuple(names[1:4])]
    for number, cohort in enumerate(cohorts):
        later = cohorts[number + 1] if number < 3 else ()
        ahead = riding.plan(number + 1, cohort=later) if later else None
        riding.start(riding.plan(number, cohort=cohort), ahead)
        check(riding, riding.run(made(riding, number)), number, cohort)
        assert riding.waits == (8 if number == 0 else 5)


def test_who_drops_out_in_between_is_a_drop_out_of_the_next_round(tmp_path: Path) -> None:
    riding = Riding.of(tmp_path, SHAPE, threshold=3)
    names = list(riding.clients)
    riding.start(riding.plan(0), riding.plan(1))
    check(riding, riding.run(made(riding, 0)), 0, names)
    riding.start(riding.plan(1), riding.plan(2), silent=names[3:])
    check(riding, riding.run(made(riding, 1), silent=names[3:]), 1, names[:3])
    assert riding.waits == 5
    # it did not prepare round 2 either, and is there again in round 3
    riding.again(names[3])
    riding.start(riding.plan(2), riding.plan(3), silent=names[3:])
    riding.give(names[3], riding.clients[names[3]].begin(riding.plan(2)))
    riding.give(names[3], riding.clients[names[3]].prepare(riding.plan(3)))
    check(riding, riding.run(made(riding, 2)), 2, names[:3])
    riding.start(riding.plan(3))
    check(riding, riding.run(made(riding, 3)), 3, names)
    assert riding.waits == 5


@pytest.mark.parametrize(
    "change", [{"minimum": 3}, {"cohort": ("client-0000", "client-0001", "client-0003")}]
)
def test_what_was_prepared_for_another_plan_is_thrown_away(
    change: dict[str, object], tmp_path: Path
) -> None:
    riding = Riding.of(tmp_path, SHAPE)
    names, late = list(riding.clients), list[bytes]()
    riding.tap = lambda sender, recipient, data: (
        late.append(data) or data if recipient == names[0] else data
    )
    riding.start(riding.plan(0), riding.plan(1))
    check(riding, riding.run(made(riding, 0)), 0, names)
    assert riding.server.unused == 2
    riding.start(riding.plan(2, **change))
    prepared = [data for data in late if read_header(data).round == 1]
    for data in prepared:
        with pytest.raises(RefusedError, match="stale"):
            riding.clients[names[0]].receive(data)
    check(riding, riding.run(made(riding, 2)), 2, riding.plan(2, **change).cohort)
    assert riding.waits == 8
    for name in riding.plan(2, **change).cohort:
        kept = FolderStore(tmp_path / name, riding.keys[name]).saved(
            1, state_context(riding.plan(1), name)
        )
        state = RoundState.decode(kept or b"")
        assert state.step == ClientStep.LEFT
        assert (state.sealing, state.masking, state.self_seeds, state.rows) == (None, None, [], {})


def test_a_set_up_that_fails_costs_the_running_round_nothing(tmp_path: Path) -> None:
    riding = Riding.of(tmp_path, SHAPE)
    names = list(riding.clients)
    riding.tap = lambda sender, recipient, data: (
        None if sender in names[:2] and claimed_round(data) == 1 else data
    )
    riding.start(riding.plan(0), riding.plan(1))
    check(riding, riding.run(made(riding, 0)), 0, names)
    assert isinstance(riding.server.failed, RoundRefusedError)
    assert riding.server.prepared == frozenset()
    riding.tap = lambda sender, recipient, data: data
    riding.start(riding.plan(riding.server.unused))
    check(riding, riding.run(made(riding, 2)), 2, names)


def test_both_rounds_outlive_a_kill_of_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each message there is another client, and after each step another server."""
    riding, steps, plans = Riding.of(tmp_path, SHAPE), list[Step](), list[RoundPlan]()
    original = ServerRounds.advance

    def advance(self: ServerRounds) -> list[Message]:
        sent = original(self)
        riding.server = ServerRounds(riding.make_server, plans[0].round)
        again = [*riding.server.begin(plans[0]), *riding.server.prepare(plans[1])]
        assert {(m.recipient, m.data) for m in sent} <= {(m.recipient, m.data) for m in again}
        steps.append(riding.server.current.step)
        return sent

    monkeypatch.setattr(ServerRounds, "advance", advance)
    for number in range(3):
        plans[:] = riding.plan(number), riding.plan(number + 1)
        riding.start(*plans)
        opened = riding.run(made(riding, number), before=lambda name: riding.again(name, *plans))
        check(riding, opened, number, list(riding.clients))
        assert riding.waits == (8 if number == 0 else 5)
    assert len(steps) == 18


@dataclass
class Killer:
    """Clients die at one write in eight, and before one message in eight.

    The server dies after one step in three.
    """

    riding: Riding
    dice: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    def hits(self, what: str, odds: float) -> bool:
        hit = self.dice.random() < odds
        self.kills[what] += hit
        return hit

    def writing(self, write: Callable[..., None]) -> Callable[..., None]:
        def killing(*arguments: Any, **rest: Any) -> None:
            late = self.dice.random() < 0.5
            if late:
                write(*arguments, **rest)
            if self.hits("write", 1 / 8):
                raise KilledError
            if not late:
                write(*arguments, **rest)

        return killing

    def advancing(self, advance: Callable[[ServerRounds], Any]) -> Callable[[ServerRounds], Any]:
        def killing(server: ServerRounds) -> Any:
            sent, (plan, ahead) = advance(server), self.riding.plans
            if self.hits("server", 1 / 3):
                self.riding.server = ServerRounds(self.riding.make_server, plan.round)
                self.riding.server.begin(plan)
                self.riding.server.prepare(ahead)
            return sent

        return killing

    def before(self, name: str) -> None:
        if self.hits("message", 1 / 8):
            plans = self.riding.plans
            self.riding.attempt(name, lambda client: self.riding.again(name, *plans) or [])


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments_change_no_sum_and_no_answer(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    riding = Riding.of(tmp_path, SHAPE)
    killer = Killer(riding, random.Random(seed))
    writing = killer.writing(store.write_atomically)
    monkeypatch.setattr(store, "write_atomically", writing)
    monkeypatch.setattr(ServerRounds, "advance", killer.advancing(ServerRounds.advance))
    for number in range(3):
        riding.start(riding.plan(number), riding.plan(number + 1))
        opened = riding.run(made(riding, number), before=killer.before)
        check(riding, opened, number, list(riding.clients))
        assert riding.waits == (8 if number == 0 else 5)
    assert min(killer.kills[what] for what in ("write", "server", "message")) > 1
    said: dict[tuple[object, ...], set[bytes]] = {}
    for sender, _, data in riding.sent:
        for part in envelopes(data) if sender != "server" else []:
            header = read_header(part)
            place = sender, header.round, header.phase, header.chunk, header.chunks
            said.setdefault(place, set()).add(part)
    assert len(said) > 100
    assert {len(each) for each in said.values()} == {1}


FUZZED: list[Riding] = []


@settings(max_examples=80)
@given(data=st.data())
def test_whatever_the_bytes_both_only_refuse(data: st.DataObject) -> None:
    """Messages of both rounds, damaged anywhere or cut, and nonsense: a word or a typed refusal."""
    if not FUZZED:
        folder = Path(tempfile.mkdtemp())
        FUZZED.append(Riding.of(folder, SHAPE))
        FUZZED[0].start(FUZZED[0].plan(0), FUZZED[0].plan(1))
        FUZZED[0].run(made(FUZZED[0], 0))
    riding = FUZZED[0]
    _, recipient, message = data.draw(st.sampled_from(riding.sent))
    at, byte = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(1, 255))
    kinds = {
        "flip": message[:at] + bytes([message[at] ^ byte]) + message[at + 1 :],
        "cut": message[:at],
        "random": data.draw(st.binary(max_size=300)),
    }
    wrong = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    assert riding.server.receive(wrong) is not None
    client = riding.clients[recipient if recipient in riding.clients else "client-0000"]
    with pytest.raises(SecureSumError):
        client.receive(wrong)
