"""How far clients differ is measured from opened sums alone, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.sums import OpenSum
from helpers import make_images, tiny_config
from torch import Tensor

from secure_fl.data.dataset import Dataset
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.summing import Summed
from secure_fl.run import Federation

SIX = {"partition": {"clients": 6, "groups": 2}}


@pytest.fixture(scope="module")
def images() -> Dataset:
    return make_images(180)


def updates(images: Dataset, name: str = "cluster", minimum: int = 3, **tables: Any) -> Updates:
    tables = {**SIX, "security": {"protection": "masked"}, **tables}
    return Updates.of(Federation(tiny_config(**tables), data=images).factory, name, minimum)


def summed(how: Updates, changes: Tensor, choices: list[int], weights: list[float]) -> Summed:
    total = OpenSum()
    for client, (change, choice, weight) in enumerate(zip(changes, choices, weights, strict=True)):
        total.add(client, how.grid.blocks(how.summand(change), choice, weight))
    return total.open()


def drawn(how: Updates, clients: int = 6) -> Tensor:
    """Changes of so many clients, `[clients, S + P]`, well within their limits."""
    width = how.grid.shared + how.grid.pooled - 1
    return 0.02 * torch.randn(clients, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_it_is_what_the_updates_themselves_say_pool_by_pool(images: Dataset, norm: str) -> None:
    """Against the definition, with weights, over what the pool's members do not all share."""
    how = updates(images, pools={"encoder": "shared"}, model={"norm": norm})
    changes, choices = drawn(how), [0, 0, 0, 1, 1, 1]
    weights = [1.0, 0.5, 0.25, 1.0, 1.0, 1.0]
    own = torch.ones(changes.shape[1], dtype=torch.bool)
    own[[*range(how.grid.shared), *how.grid.wide[:-1]]] = False
    changes[3:, own] += 0.05
    found = how.differences(summed(how, changes, choices, weights)).differences
    for pool, part in enumerate((slice(0, 3), slice(3, 6))):
        mine, share = changes[part][:, own].double(), torch.tensor(weights[part]).double()
        share = (share / share.sum())[:, None]
        alike = (share * mine).sum(0).square().sum() / (share * mine.square()).sum()
        expected = float((1 - alike) * 3 / 2)
        assert found[pool] == pytest.approx(min(1.0, expected), abs=2e-3)
    assert found[1] < 0.3 < found[0]


def test_alike_is_0_unlike_is_1_and_a_closed_pool_says_nothing(images: Dataset) -> None:
    how = updates(images)
    changes = drawn(how)[:1].repeat(6, 1)
    alike = how.differences(summed(how, changes, [0] * 4 + [1, 1], [1.0] * 6)).differences
    assert alike[0] == pytest.approx(0.0, abs=1e-3)
    assert alike[1] is None, "two members are too few"
    unlike = torch.zeros(6, changes.shape[1])
    unlike[range(6), range(how.grid.shared, how.grid.shared + 6)] = 0.5
    found = how.differences(summed(how, unlike, [0] * 6, [1.0] * 6)).differences
    assert found[0] == pytest.approx(1.0, abs=1e-3)


def test_models_move_as_they_do_without_it(images: Dataset) -> None:
    made = Federation(tiny_config(**SIX, security={"protection": "masked"}), data=images)
    how, grid = Updates.of(made.factory, "cluster", 3), made.factory.grid("cluster")
    changes, choices, weights = drawn(how), [0, 0, 0, 1, 1, 1], [1.0] * 6
    bare = OpenSum()
    for client, change in enumerate(changes):
        bare.add(client, grid.blocks(change, choices[client], weights[client]))
    moved = how.moved(summed(how, changes, choices, weights), None)
    expected = grid.means(bare.open().total, 6, 3)
    assert torch.equal(moved.shared, expected[0])
    assert torch.equal(moved.pooled, expected[1])


@pytest.mark.parametrize(
    "tables",
    [
        {"privacy": {"unit": "example", "noise": 4.0, "epsilon": 60.0}},
        {"privacy": {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 5}},
        {"security": {"protection": "masked", "robust": "median", "group_size": 4}},
    ],
    ids=["example", "client", "groups"],
)
def test_it_is_off_under_privacy_and_in_groups(images: Dataset, tables: dict[str, Any]) -> None:
    tables = {"partition": {"clients": 12, "groups": 1}, "pools": {"enabled": False}, **tables}
    how = updates(make_images(360), "pretrain", **tables)
    change = torch.ones(how.grid.shared + how.grid.pooled)
    assert how.summand(change) is change, "nothing is added to what is sent"


def test_it_is_on_record_whatever_protects_the_sum_and_whoever_may_read_it(
    tmp_path: Path, images: Dataset
) -> None:
    found = []
    for protection in ("plain", "masked"):
        config = tiny_config(
            **SIX,
            pretrain={"rounds": 1, "weights": "examples"},
            pools={"weights": "examples", "start": "pretrained", "count": 1, "rounds": 2},
            model={"norm": "group"},
            security={"protection": protection},
            evaluate={"enabled": False},
        )
        Federation(config, data=images).run(tmp_path / protection)
        lines = (tmp_path / protection / "metrics.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        trained = [line["metrics"] for line in told if line["phase"] in ("pretrain", "cluster")]
        assert trained
        found.append([metrics["differences"] for metrics in trained])
    assert found[0] == found[1]
    assert all(0 < each[0] <= 1 for each in found[0])
