"""Parties that are killed at any moment and made again come to what they would have come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from federation.parties.kills import Federation, Kind, seeds
from federation.parties.toy_federation import Sampled, Short

from secure_fl.crypto.identities import Identity
from secure_fl.federation.state import Place
from secure_fl.federation.transcript_entries import SumEntry
from secure_fl.federation.verify_rounds import Rounds

KINDS = [
    Kind("masked"),
    Kind("bfv+masked"),
    Kind("bfv+masked", "authority"),
    Kind("plain"),
    Kind("masked", groups=3),
    Kind("bfv+masked", "authority", groups=3),
    Kind("bfv+masked", publish=True),
    Kind("masked", program=Sampled(6, 4)),
    Kind("masked", program=Short(4, 4)),
]


def kills_of(seed: int, names: tuple[str, ...], authority: bool) -> dict[str, int]:
    """Everybody in turn: the server, one client, all clients, the authority, all of them."""
    turns: list[dict[str, int]] = [
        {"server": 6},
        {names[seed % len(names)]: 6},
        dict.fromkeys(names, 2),
        {"server": 2, **dict.fromkeys(names, 1), "authority": 2},
    ]
    turns += [{"authority": 6}] if authority else []
    return turns[seed % len(turns)]


def check_record(made: Federation) -> None:
    """The server's transcript verifies; each sum is in it once, and nobody missed any of it."""
    lines = made.lines()
    assert Rounds().read(lines).findings == []
    sums = [line.entry for line in lines if isinstance(line.entry, SumEntry)]
    assert len(sums) == made.program.rounds * (2 if made.program.groups else 1)
    assert [entry.missed for entry in sums] == [{}] * len(sums)
    survivors = [name for entry in sums for name in entry.survivors]
    program = made.program
    asked = [program.form(Place(0, number)).cohort for number in range(program.rounds)]
    assert sorted(survivors) == sorted(made.names[each] for cohort in asked for each in cohort)
    for name in made.names:  # but for what followed the last call
        known = (made.folder / name / "transcript.jsonl").read_bytes().splitlines()
        assert known == [line.brief() for line in lines[: len(known)]]
        assert len(known) == len(lines)


@dataclass(frozen=True)
class Whole:
    """A federation that nobody disturbed."""

    kind: Kind
    people: dict[str, Identity]
    pools: list[torch.Tensor]
    ledgers: dict[str, list[str]]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    made = Federation(tmp_path_factory.mktemp("whole"), request.param)
    assert made.run() == 0
    check_record(made)
    made.close()
    return Whole(request.param, made.people, made.pools(), made.ledgers())


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_killed_parties_come_to_the_same(tmp_path: Path, whole: Whole, seed: int) -> None:
    made = Federation(tmp_path, whole.kind, people=whole.people)
    assert made.run(seed, kills_of(seed, made.names, made.authority)) > 0
    server = made.hosts[0].party
    assert server.failed is None
    assert all(host.over for host in made.hosts)
    for found, expected in zip(made.pools(), whole.pools, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert made.ledgers() == whole.ledgers
    if whole.kind.publish:
        assert server.models.digest == server.state
        torch.testing.assert_close(server.models.tensors["pools"], whole.pools[0], rtol=0, atol=0)
    else:
        assert server.models is None
    check_record(made)
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, 3], ids=["one sum", "groups"])
@pytest.mark.parametrize("seed", seeds())
def test_no_release_is_made_twice(tmp_path: Path, seed: int, groups: int | None) -> None:
    made = Federation(tmp_path, Kind("masked", groups=groups), noise=True)
    names = dict.fromkeys(made.names, 3)
    assert made.run(seed, names) > 0
    assert made.hosts[0].party.failed is None
    charged = [key for keys in made.ledgers().values() for key in keys]
    assert sorted(made.given) == sorted(charged)
    assert len(charged) == len(made.names) * made.program.rounds
    assert {len(given) for given in made.given.values()} == {1}
    check_record(made)
    made.close()
