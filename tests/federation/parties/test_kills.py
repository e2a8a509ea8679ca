"""Parties that are killed at any moment and made again come to what they would have come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from federation.parties.kills import Federation, Kind, seeds
from federation.parties.toy_federation import Sampled, Short, Toy

from secure_fl.crypto.identities import Identity
from secure_fl.federation.transcript.entries import RoundEntry, SumEntry
from secure_fl.federation.verify.rounds import Rounds

KINDS = {
    "masks": Kind("masked"),
    "clients open": Kind("bfv+masked"),
    "an authority opens": Kind("bfv+masked", "authority"),
    "in the open": Kind("plain"),
    "groups": Kind("masked", program=Toy(6, 3, groups=3)),
    "an authority opens groups": Kind("bfv+masked", "authority", Toy(6, 3, groups=3)),
    "published": Kind("bfv+masked", publish=True),
    "other cohorts": Kind("masked", program=Sampled(6, 4)),
    "a step that ends early": Kind("masked", program=Short(4)),
}


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


def check_record(made: Federation) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    """The server's transcript verifies, each sum is in it once, and nobody missed any of it.

    Returns:
        Of each sum the place and the survivors.
    """
    lines, begun, sums = made.lines(), dict[str | None, RoundEntry](), list[SumEntry]()
    assert Rounds().read(lines).findings == []
    for line in lines:
        if isinstance(line.entry, RoundEntry):
            begun[line.entry.plan] = line.entry
        elif isinstance(line.entry, SumEntry):
            sums.append(line.entry)
    assert [entry.missed for entry in sums] == [{}] * len(sums)
    for name in made.names:
        known = (made.folder / name / "transcript.jsonl").read_bytes().splitlines()
        assert known == [line.brief() for line in lines]
    return [(begun[entry.plan].place, entry.survivors) for entry in sums]


@dataclass(frozen=True)
class Whole:
    """A federation that nobody disturbed."""

    kind: Kind
    people: dict[str, Identity]
    pools: list[torch.Tensor]
    ledgers: dict[str, list[str]]
    sums: list[tuple[tuple[int, int], tuple[str, ...]]]


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    kind = KINDS[request.param]
    made = Federation(tmp_path_factory.mktemp("whole"), kind)
    assert made.run() == 0
    made.close()
    return Whole(kind, made.people, made.pools(), made.ledgers(), check_record(made))


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
    assert check_record(made) == whole.sums
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masks", "in the open", "groups"])
@pytest.mark.parametrize("seed", seeds())
def test_no_release_is_made_twice(tmp_path: Path, seed: int, kind: str) -> None:
    made = Federation(tmp_path, KINDS[kind], noise=True)
    names = dict.fromkeys(made.names, 3)
    assert made.run(seed, names) > 0
    assert made.hosts[0].party.failed is None
    charged = [key for keys in made.ledgers().values() for key in keys]
    assert sorted(made.given) == sorted(charged)
    assert len(charged) == len(made.names) * made.program.rounds
    assert {len(given) for given in made.given.values()} == {1}
    check_record(made)
    made.close()
