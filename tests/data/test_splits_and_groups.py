"""Splits and groups that the data bring: nothing is trained on and tested, no group is divided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from data.dealing import OPEN, deal, numbered, numbers
from helpers import make_images, tiny_config

from secure_fl import Dataset, FederationConfig
from secure_fl.data.holdout import hold_out
from secure_fl.data.joining import join
from secure_fl.data.partitions import partition
from secure_fl.errors import DataError, PartitionError

SPLIT = np.asarray(["train", "train", "val", "test"] * 30)


KINDS: list[dict[str, Any]] = [
    {"kind": "natural"},
    {"kind": "iid", "clients": 3},
    {"kind": "dirichlet", "clients": 3, "concentration": 1.0},
    {"kind": "shards", "clients": 3},
    {"kind": "label_permutation", "clients": 3},
]


@pytest.mark.parametrize("privacy", ["none", "example", "client"])
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_rows_go_where_the_split_says(spec: dict[str, Any], privacy: str) -> None:
    owner = np.arange(120) // 4 % 3 if spec["kind"] == "natural" else None
    clients = deal(
        numbered(120, y=torch.arange(120) // 7 % 4, split=SPLIT, client=owner),
        None,
        privacy,
        **spec,
    )
    assert numbers(*(client.train for client in clients)) == {n for n in range(120) if n % 4 < 2}
    validation = [n for client in clients for n in numbers(client.validation)]
    assert sorted(validation) == [n for n in range(120) if n % 4 == 2], "each with one client"
    assert numbers(*(client.test for client in clients)) <= {n for n in range(120) if n % 4 == 3}
    assert all(len(client.test) for client in clients)


def test_a_split_without_tests_is_held_out_of_training() -> None:
    clients = deal(numbered(120, split=np.asarray(["train", "valid"] * 60)), kind="iid", clients=3)
    assert numbers(*(client.test for client in clients)) <= set(range(0, 120, 2))
    assert not numbers(*(client.test for client in clients)) & numbers(
        *(client.train for client in clients)
    )


@pytest.mark.parametrize(
    "spelling",
    [
        ["train", "val", "test"],
        ["Training", "valid", "TEST"],
        [0, 1, 2],
        ["0", "1", "2"],
        [0.0, 1.0, 2.0],
    ],
)
def test_splits_in_every_spelling(spelling: list[Any]) -> None:
    data = numbered(9, split=np.asarray(spelling * 3))
    assert data.split is not None
    assert data.split.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize(
    "wrong", [["train", "later"], [0, 3], ["test", "test"], [1, 2], ["train", None]]
)
def test_other_splits_are_refused(wrong: list[Any]) -> None:
    with pytest.raises(DataError) as caught:
        numbered(2, split=wrong)
    assert caught.value.field == "data.split"


def test_sources_with_and_without_tests_are_held_out_one_by_one() -> None:
    split = numbered(40, split=np.asarray(["train", "test"] * 20))
    other = Dataset.from_arrays(numbered(40).x + 1000, numbered(40).y)
    clients = partition(
        [(split, None), (other, None)],
        FederationConfig(**OPEN, partition={"kind": "iid", "clients": 2}),
    )
    trained, tested = numbers(*(c.train for c in clients)), numbers(*(c.test for c in clients))
    assert {n for n in trained if n < 1000} == set(range(0, 40, 2))
    assert sum(n >= 1000 for n in trained) == 32
    assert not trained & tested


@pytest.mark.parametrize("privacy", ["none", "example"])
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_a_group_is_never_divided(spec: dict[str, Any], privacy: str) -> None:
    """Windows of 40 recordings: hold-out, validation and dealing move whole recordings."""
    recording = np.arange(200) // 5
    owner = recording % 3 if spec["kind"] == "natural" else None
    data = numbered(200, y=torch.from_numpy(recording % 4), group=recording, client=owner)
    clients = deal(data, {"validation_fraction": 0.2}, privacy, **spec)
    trained = [{n // 5 for n in numbers(client.train)} for client in clients]
    kept = [{n // 5 for n in numbers(client.validation)} for client in clients]
    tested = {n // 5 for client in clients for n in numbers(client.test)}
    everything = [*trained, *kept]
    assert sum(map(len, everything)) == len(set.union(*everything)), "no recording at two places"
    assert not set.union(*everything) & tested
    assert all(map(len, kept))
    assert all(
        len(client.train) == 5 * len(mine) for client, mine in zip(clients, trained, strict=True)
    )


def test_groups_of_one_example_are_dealt_as_examples_are() -> None:
    """Numbered the other way round: a group's number is not its example's place."""
    data = numbered(400, y=torch.arange(400) // 100, group=np.arange(400)[::-1].copy())
    clients = deal(data, kind="shards", clients=4, shards_per_client=1)
    assert max(len(client.train.y.unique()) for client in clients) <= 2
    _, held = hold_out(data, 0.2, data.y, torch.Generator().manual_seed(0))
    assert held.y.bincount().tolist() == [20] * 4, "held out by label"


def test_clients_that_choose_on_validation_examples_need_some() -> None:
    config = tiny_config(
        data={"validation_fraction": 0.1},
        pools={"select_on": "validation"},
        partition={"clients": 4},
    )
    images = make_images(80)
    few = Dataset.from_arrays(images.x, images.y, split=np.asarray(["val"] * 2 + ["train"] * 78))
    with pytest.raises(PartitionError, match="no validation examples") as caught:
        partition([(few, None)], config)
    assert caught.value.field == "pools.select_on"


def test_groups_that_cannot_be_kept_together_are_refused() -> None:
    with pytest.raises(DataError, match="two splits"):
        numbered(4, group=[0, 0, 1, 1], split=["train", "test", "train", "test"])
    with pytest.raises(PartitionError, match="two clients"):
        deal(numbered(40, group=np.arange(40) % 4, client=np.arange(40) // 20))
    with pytest.raises(PartitionError, match="single group"):
        deal(numbered(40, group=np.zeros(40, int)), kind="iid", clients=2)
    with pytest.raises(PartitionError, match="groups of examples"):
        deal(numbered(40, group=np.arange(40) // 10), kind="iid", clients=6)


def test_groups_of_different_parts_are_different() -> None:
    joined = join(
        [
            numbered(4, group=["p", "p", "q", "q"]),
            numbered(4),
            numbered(4, group=["p", "p", "p", "r"]),
        ],
        "all",
    )
    assert joined.group is not None
    assert joined.group.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 7]
