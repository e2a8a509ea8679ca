"""What becomes of a federation in processes of its own when one dies, or the way is cut, in any
phase: nothing. The final pools are those of a run that nobody disturbed, on a queue in one process;
everybody has paid once for what it released, and released it once; no round is opened twice.

What a site can say that does not belong there is refused, and nothing else; who is late is left
out of the round, and in the next one again. The same faults in one process, and many more:
`tests/federation/parties/test_fault_matrix.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from engines.session.lives import SERVER
from engines.session.nursery import Nursery
from engines.session.processes import CLIENTS, Processes
from federation.parties.kills import Federation, Kind
from federation.parties.test_kills import check_record
from federation.parties.toy_federation import Toy, expected, identities

from secure_fl.crypto.identities import Identity
from secure_fl.federation.transcript.entries import SumEntry

FIRST = ["HELLO", "JOIN"]
KEYS = {"plain": ["SECRET"], "masked": ["SECRET"], "bfv+masked": ["KEYS", "SECRET"]}
MASKED = ["ADVERTISE", "SHARE", "UPLOAD", "AGREE", "OPEN_COUNTS", "OPEN_POOLS"]
CLIENTS_HOLD, AUTHORITY = ("bfv+masked", "clients"), ("bfv+masked", "authority")
KINDS = [("plain", "clients"), ("masked", "clients"), CLIENTS_HOLD, AUTHORITY]


def said(who: str, kind: tuple[str, str]) -> list[str]:
    """Phases of all messages that a site with clients, or the server, says; in their order."""
    protection, holder = kind
    sums = MASKED if protection != "plain" else ["UPLOAD", "OPEN_POOLS"]
    made = KEYS[protection]
    if who == "keeper":
        return [*FIRST, *made, "OPEN_COUNTS", "STATE", "APPLY"]
    if who != SERVER:
        return [*FIRST, *(made if holder == "clients" else []), *sums] + (
            ["APPLY"] if holder == "clients" else []
        )
    answers = [phase for phase in sums if phase != "UPLOAD"]
    last = ["APPLY"] if holder == "clients" else ["STATE"]
    return ["PLAN", "MAKE", *made, "BEGIN", *answers, *last, "END"]


def faults(who: str, how: str, kind: tuple[str, str]) -> list[list[str]]:
    """One in every phase, one after the other."""
    heard = said(SERVER if who != SERVER else "north", kind)
    if who == "keeper":
        heard = ["PLAN", "MAKE", *KEYS[kind[0]], "BEGIN", "OPEN_COUNTS", "OPEN_POOLS", "END"]
    elif who != SERVER and kind == AUTHORITY:
        heard = [phase for phase in heard if phase != "MAKE"]
    return [[how, phase] for phase in (heard if how == "unheard" else said(who, kind))]


@dataclass(frozen=True)
class Whole:
    """A federation that nobody disturbed, on a queue in this process."""

    people: dict[str, Identity]
    ledgers: dict[str, list[str]]
    sums: list[tuple[tuple[int, int], tuple[str, ...]]]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module")
def people() -> dict[str, Identity]:
    return identities(CLIENTS)


@pytest.fixture(scope="module")
def wholes(
    people: dict[str, Identity], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Whole]:
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("whole")
        made = Federation(folder, Kind(*kind, Toy(CLIENTS, 2)), people=people)
        assert made.run() == 0
        made.close()
        for pools in made.pools():
            torch.testing.assert_close(pools, expected(range(CLIENTS), 2), rtol=0, atol=0)
        found[kind] = Whole(people, made.ledgers(), check_record(made))
    return found


def check(made: Processes, whole: Whole) -> None:
    """It ended as the one that nobody disturbed."""
    assert made.outcome(SERVER)["failed"] == ""
    pools = made.pools()
    assert len(pools) == CLIENTS
    for found in pools.values():
        torch.testing.assert_close(found, expected(range(CLIENTS), 2), rtol=0, atol=0)
    federation = made.federation
    assert federation.ledgers() == whole.ledgers
    assert check_record(federation) == whole.sums
    check_released_once(made)


def check_released_once(made: Processes) -> None:
    """Whatever was sent again in any life is what had been sent."""
    uploads = made.uploads()
    assert {name for name, _ in uploads} == set(made.federation.names)
    assert all(len(digests) == 1 for digests in uploads.values())


def disturbed(
    who: str, how: str, kind: tuple[str, str], whole: Whole, folder: Path, nursery: Nursery
) -> None:
    planned = faults(who, how, kind)
    made = Processes(folder, nursery, *kind, faults={who: planned}, people=whole.people).run()
    left = made.outcome(who)["faults"]
    if how == "cut":
        assert left == []
    else:
        assert (left, made.deaths) == ([], {who: len(planned)})
    check(made, whole)


Wholes = dict[tuple[str, str], Whole]
QUICK = [
    ("north", "unsaid", CLIENTS_HOLD),
    ("north", "unheard", ("masked", "clients")),
    (SERVER, "unsaid", AUTHORITY),
    (SERVER, "unheard", CLIENTS_HOLD),
    ("keeper", "unsaid", AUTHORITY),
    ("north", "cut", CLIENTS_HOLD),
    (SERVER, "cut", ("masked", "clients")),
]
ALL = [
    (who, how, kind)
    for kind in KINDS
    for who in (SERVER, "north", *(["keeper"] if kind == AUTHORITY else []))
    for how in ("unsaid", "said", "unheard", "cut")
    if (who, how, kind) not in QUICK
]


@pytest.mark.parametrize(("who", "how", "kind"), QUICK)
def test_a_fault_in_every_phase(
    who: str, how: str, kind: tuple[str, str], wholes: Wholes, tmp_path: Path, nursery: Nursery
) -> None:
    disturbed(who, how, kind, wholes[kind], tmp_path, nursery)


@pytest.mark.slow
@pytest.mark.parametrize(("who", "how", "kind"), ALL)
def test_every_fault_in_every_phase(
    who: str, how: str, kind: tuple[str, str], wholes: Wholes, tmp_path: Path, nursery: Nursery
) -> None:
    disturbed(who, how, kind, wholes[kind], tmp_path, nursery)


def test_everybody_dies_now_and_then_and_noise_is_drawn_once(
    people: dict[str, Identity], tmp_path: Path, nursery: Nursery
) -> None:
    planned = {
        SERVER: [["unheard", "UPLOAD"], ["unsaid", "OPEN_POOLS"], ["said", "END"]],
        "north": [["said", "UPLOAD"], ["cut", "AGREE"], ["unsaid", "APPLY"]],
        "south": [["unsaid", "UPLOAD"], ["unheard", "AGREE"], ["unsaid", "OPEN_COUNTS"]],
    }
    made = Processes(tmp_path, nursery, "masked", faults=planned, people=people, noise=True).run()
    assert made.outcome(SERVER)["failed"] == ""
    first, *others = made.pools().values()
    for pools in others:
        torch.testing.assert_close(pools, first, rtol=0, atol=0)
    check_record(made.federation)
    check_released_once(made)
    assert {name: len(keys) for name, keys in made.federation.ledgers().items()} == dict.fromkeys(
        made.federation.names, 2
    )


def test_what_does_not_belong_there_is_refused_and_nothing_else(
    wholes: Wholes, tmp_path: Path, nursery: Nursery
) -> None:
    """Again, of the round before, changed, cut off, forged, a stranger's, and no message at all."""
    kind = ("masked", "clients")
    wrap = {"south": "engines.session.meddling:strange"}
    made = Processes(tmp_path, nursery, *kind, wrap=wrap, people=wholes[kind].people).run()
    assert made.outcome(SERVER)["failed"] == ""
    for found in made.pools().values():
        torch.testing.assert_close(found, expected(range(CLIENTS), 2), rtol=0, atol=0)
    assert made.federation.ledgers() == wholes[kind].ledgers
    assert check_record(made.federation) == wholes[kind].sums
    refused = made.outcome(SERVER)["refused"]
    assert {"unknown-client", "wrong-signature", "truncated", "stale"} <= refused.keys()
    assert {"duplicate", "replayed", "wrong-phase"} & refused.keys()


def test_who_is_late_is_left_out_and_in_the_next_round_again(
    people: dict[str, Identity], tmp_path: Path, nursery: Nursery
) -> None:
    wrap = {"south": "engines.session.meddling:late"}
    made = Processes(tmp_path, nursery, "masked", wrap=wrap, people=people, deadline=5.0).run()
    assert made.outcome(SERVER)["failed"] == ""
    everybody = range(CLIENTS)
    # without it the first round adds two clients to the pool, which stays closed
    wanted = expected(everybody, 2) - expected(everybody, 1)
    for found in made.pools().values():
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    lines = [line.entry for line in made.federation.lines()]
    sums = [entry.survivors for entry in lines if isinstance(entry, SumEntry)]
    assert sums == [made.federation.names[:-1], made.federation.names]
    assert made.outcome(SERVER)["refused"] == {"stale": 1}
