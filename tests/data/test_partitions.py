"""Who holds what: nothing is lost, doubled or leaked into a test set, and each kind differs in the
way it says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import make_images
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData, partition
from secure_fl.data.summary import summarise
from secure_fl.errors import PartitionError


def numbered(count: int = 200, classes: int = 4, *, client: torch.Tensor | None = None) -> Dataset:
    """Vectors that carry their own number, so that each example can be followed."""
    x = torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 2)
    return Dataset.from_arrays(x, torch.arange(count) % classes, client=client, classes=classes)


OPEN: dict[str, Any] = {"security": {"protection": "plain"}, "pools": {"enabled": False}}
"""Nothing is summed or pooled, so any number of clients will do."""


def deal(
    data: Dataset,
    seed: int = 0,
    test: Dataset | None = None,
    data_table: dict[str, Any] | None = None,
    **spec: Any,
) -> list[ClientData]:
    return partition(
        [(data, test)], FederationConfig(seed=seed, data=data_table or {}, partition=spec, **OPEN)
    )


def numbers(data: Dataset) -> list[int]:
    return data.x[:, 0].int().tolist()


KINDS: list[dict[str, Any]] = [
    {"kind": "iid", "clients": 7},
    {"kind": "dirichlet", "clients": 5, "concentration": 0.5},
    {"kind": "shards", "clients": 6, "shards_per_client": 2},
    {"kind": "label_permutation", "clients": 6, "groups": 3},
]


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_every_training_example_has_one_owner_and_no_test_example_is_trained_on(
    spec: dict[str, Any],
) -> None:
    clients = deal(numbered(), **spec)
    owned = [n for client in clients for n in numbers(client.train)]
    tested = {n for client in clients for n in numbers(client.test)}
    assert len(owned) == len(set(owned)) == 160
    assert not tested & set(owned)
    assert [client.id for client in clients] == list(range(spec["clients"]))


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_the_seed_decides(spec: dict[str, Any]) -> None:
    first, again, other = (
        [numbers(c.train) + numbers(c.test) for c in deal(numbered(), seed, **spec)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@settings(max_examples=30, deadline=None)
@given(
    clients=st.integers(1, 20),
    count=st.integers(60, 120),
    classes=st.integers(1, 5),
    seed=st.integers(0, 5),
    kind=st.sampled_from(["iid", "shards"]),
)
def test_nothing_is_lost_for_any_size(
    clients: int, count: int, classes: int, seed: int, kind: str
) -> None:
    dealt = deal(numbered(count, classes), seed, kind=kind, clients=clients, min_examples=2)
    held_out = round(0.2 * count)
    owned = [n for client in dealt for n in numbers(client.train)]
    assert len(owned) == len(set(owned)) == count - held_out
    assert all(len(client.test) >= 1 for client in dealt)


def test_small_concentrations_are_more_uneven() -> None:
    skew = [
        summarise(
            deal(numbered(2000), kind="dirichlet", clients=5, concentration=c, min_examples=2)
        ).label_skew
        for c in (0.1, 1.0, 100.0)
    ]
    assert skew[0] > skew[1] > skew[2]
    assert skew[2] < 0.1


def test_shards_limit_the_labels_a_client_holds() -> None:
    clients = deal(numbered(400, 4), kind="shards", clients=4, shards_per_client=1)
    assert max(len(client.train.y.unique()) for client in clients) <= 2


def test_tests_follow_a_clients_own_labels() -> None:
    for client in deal(numbered(2000), kind="dirichlet", clients=4, concentration=0.2):
        train = client.train.y.bincount(minlength=4) / len(client.train)
        test = client.test.y.bincount(minlength=4) / len(client.test)
        assert (train - test).abs().max() < 0.1


def test_rotations_are_exact_quarter_turns() -> None:
    images = make_images(160)
    clients = partition(
        [(images, None)],
        FederationConfig(**OPEN, partition={"kind": "rotation", "clients": 4, "groups": 4}),
    )
    for client in clients:
        assert client.group == client.id
        back = torch.rot90(client.train.x, -client.id, (-2, -1))
        assert all(bool((images.x == x).flatten(1).all(1).any()) for x in back[:10])
        assert client.note == f"rotated {90 * client.id}°"


def test_other_angles_keep_the_shape() -> None:
    clients = partition(
        [(make_images(60), None)],
        FederationConfig(**OPEN, partition={"kind": "rotation", "clients": 3, "groups": 3}),
    )
    assert {client.train.shape for client in clients} == {(1, 8, 8)}
    assert not torch.equal(clients[1].train.x, torch.rot90(clients[1].train.x, 1, (-2, -1)))


def test_label_permutations_differ_and_are_bijections() -> None:
    data = numbered(300, 5)
    clients = deal(data, kind="label_permutation", clients=3, groups=3)
    maps = []
    for client in clients:
        pairs = {
            (n % 5, int(y))
            for n, y in zip(
                numbers(client.train) + numbers(client.test),
                [*client.train.y, *client.test.y],
                strict=True,
            )
        }
        assert len(pairs) == 5
        assert len({y for _, y in pairs}) == 5
        maps.append(tuple(sorted(pairs)))
    assert len(set(maps)) == 3
    assert maps[0] == tuple((c, c) for c in range(5))


def test_by_source() -> None:
    first, second = numbered(100), numbered(60)
    second = Dataset.from_arrays(second.x + 1000, second.y, name="second")
    clients = partition(
        [(first, None), (second, None)],
        FederationConfig(
            **OPEN, data={"sources": [{}, {}]}, partition={"kind": "source", "clients": 5}
        ),
    )
    assert [client.group for client in clients] == [0, 1, 0, 1, 0]
    assert all(
        (n >= 1000) == (client.group == 1)
        for client in clients
        for n in numbers(client.train) + numbers(client.test)
    )


def test_natural_clients_keep_what_is_theirs() -> None:
    owner = torch.arange(200) % 3
    clients = partition(
        [(numbered(client=owner), None)], FederationConfig(**OPEN, partition={"kind": "natural"})
    )
    assert len(clients) == 3
    for client in clients:
        held = numbers(client.train) + numbers(client.test)
        assert sorted(held) == [n for n in range(200) if n % 3 == client.id]
        assert client.note == f"client {client.id}"


def test_equal_client_numbers_in_two_files_are_different_clients() -> None:
    owner = torch.arange(200) % 2 + 7
    both = [(numbered(client=owner), None)] * 2
    clients = partition(both, FederationConfig(**OPEN, partition={"kind": "natural"}))
    assert len(clients) == 4
    assert sum(len(client.train) + len(client.test) for client in clients) == 400


def test_validation_examples_do_not_starve_training() -> None:
    with pytest.raises(PartitionError, match="would train on too few"):
        deal(
            numbered(60),
            data_table={"validation_fraction": 0.8},
            kind="iid",
            clients=12,
            min_examples=3,
        )


def test_an_official_test_split_is_used() -> None:
    official = Dataset.from_arrays(numbered(40).x + 5000, numbered(40).y)
    clients = deal(numbered(), test=official, kind="iid", clients=2)
    assert sum(len(client.train) for client in clients) == 200
    assert all(n >= 5000 for client in clients for n in numbers(client.test))


def test_limits_validation_and_missing_labels() -> None:
    table = {"test_limit": 7, "validation_fraction": 0.25, "labelled_clients": 0.5}
    clients = deal(numbered(), data_table=table, kind="iid", clients=4)
    assert all(1 <= len(client.test) <= 7 for client in clients)
    assert [len(client.validation) for client in clients] == [10] * 4
    assert [client.train.labelled for client in clients] == [True, True, False, False]
    assert clients[3].note.endswith("unlabelled")
    assert clients[3].test.labelled


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "iid", "clients": 500}, "more clients than training examples"),
        ({"kind": "iid", "clients": 100, "min_examples": 5}, "would hold fewer examples"),
        ({"kind": "rotation", "clients": 4}, "only images"),
        ({"kind": "label_permutation", "clients": 40, "groups": 30}, "fewer permutations"),
    ],
)
def test_refusals(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(PartitionError, match=message) as caught:
        deal(numbered(), **spec)
    assert caught.value.field.startswith("partition.")


def test_unlabelled_data_cannot_be_dealt_by_label() -> None:
    with pytest.raises(PartitionError, match="some have none"):
        deal(numbered().unlabelled(), kind="dirichlet", clients=3)
    assert len(deal(numbered().unlabelled(), kind="iid", clients=3)) == 3


def test_a_partition_by_source_needs_several() -> None:
    with pytest.raises(PartitionError, match="several sources"):
        deal(numbered(), kind="source", clients=4)


def test_natural_needs_its_column_and_enough_examples() -> None:
    config = FederationConfig(**OPEN, partition={"kind": "natural"})
    with pytest.raises(PartitionError, match="no client column"):
        partition([(numbered(), None)], config)
    owner = torch.zeros(200, dtype=torch.int64)
    owner[0] = 1
    with pytest.raises(PartitionError, match="client 1 holds too few"):
        partition([(numbered(client=owner), None)], config)
    few = FederationConfig(**OPEN, partition={"kind": "natural", "min_examples": 250})
    with pytest.raises(PartitionError, match="too few"):
        partition([(numbered(client=owner * 0), None)], few)
