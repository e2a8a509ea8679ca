"""Parties that are killed at any moment and made again come to what they would have come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from federation.parties.kills import Federation, seeds
from federation.parties.toy_federation import Sampled, Short, Toy

from secure_fl.crypto.identities import Identity

KINDS = {
    "masks": ("masked", "clients", Toy(4, 3)),
    "clients open": ("bfv+masked", "clients", Toy(4, 3)),
    "an authority opens": ("bfv+masked", "authority", Toy(4, 3)),
    "groups": ("masked", "clients", Toy(8, 3, groups=4)),
    "other cohorts": ("masked", "clients", Sampled(6, 4)),
    "a step that ends early": ("masked", "clients", Short(4)),
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


@dataclass(frozen=True)
class Whole:
    """A federation that nobody disturbed."""

    kind: tuple[str, str, Toy]
    people: dict[str, Identity]
    pools: list[torch.Tensor]
    ledgers: dict[str, list[str]]


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    kind = KINDS[request.param]
    made = Federation(tmp_path_factory.mktemp("whole"), *kind)
    assert made.run() == 0
    made.close()
    return Whole(kind, made.people, made.pools(), made.ledgers())


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_killed_parties_come_to_the_same(tmp_path: Path, whole: Whole, seed: int) -> None:
    made = Federation(tmp_path, *whole.kind, people=whole.people)
    assert made.run(seed, kills_of(seed, made.names, made.authority)) > 0
    assert made.hosts[0].party.failed is None
    assert all(host.over for host in made.hosts)
    for found, expected in zip(made.pools(), whole.pools, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert made.ledgers() == whole.ledgers
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_no_release_is_made_twice(tmp_path: Path, seed: int) -> None:
    made = Federation(tmp_path, "masked", noise=True)
    names = dict.fromkeys(made.names, 3)
    assert made.run(seed, names) > 0
    assert made.hosts[0].party.failed is None
    charged = [key for keys in made.ledgers().values() for key in keys]
    assert sorted(made.given) == sorted(charged)
    assert len(charged) == len(made.names) * made.program.rounds
    assert {len(given) for given in made.given.values()} == {1}
    made.close()
