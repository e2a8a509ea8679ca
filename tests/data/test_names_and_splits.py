"""Names of clients and labels that the data bring, and the partition that follows from the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.dealing import OPEN, deal, numbered
from helpers import make_images, tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.config import DataConfig
from secure_fl.data.joining import join
from secure_fl.data.partitions import partition
from secure_fl.data.summary import summarise
from secure_fl.engines.parties import LocalParties
from secure_fl.errors import ConfigError, DataError, PartitionError, SecureFLError
from secure_fl.finished.artifacts import load_card

# Labels


@pytest.mark.parametrize(
    ("labels", "names", "y"),
    [
        ([10, 20, 30, 40], ("10", "20", "30", "40"), [0, 1, 2, 3]),
        ([2019, 2021, 2020, 2019], ("2019", "2020", "2021"), [0, 2, 1, 0]),
        ([1, 2, 3, 1], ("1", "2", "3"), [0, 1, 2, 0]),
        ([0, 2, 1, 0], (), [0, 2, 1, 0]),
        ([-1, 2, 1, 0], (), [-1, 2, 1, 0]),
        ([-1, 7, 5, 7], ("5", "7"), [-1, 1, 0, 1]),
        (["b", "a", "b", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        (["10", "9", "-1", "9"], ("9", "10"), [1, 0, -1, 0]),
        ([0.0, 1.0, 1.0, 0.0], (), [0, 1, 1, 0]),
        ([True, False, True, True], (), [1, 0, 1, 1]),
        (np.array([1 << 40, 5, 5, 5]), ("5", str(1 << 40)), [1, 0, 0, 0]),
    ],
)
def test_labels_are_numbered_without_gaps(
    labels: Any, names: tuple[str, ...], y: list[int]
) -> None:
    data = numbered(4, y=labels)
    assert (data.class_names, data.y.tolist()) == (names, y)
    assert data.classes == max(y) + 1
    assert not data.declared
    assert any("numbered" in note for note in data.notes) == bool(names)


def test_the_declaration_numbers_labels() -> None:
    data = numbered(4, y=["b", "a", "b", "b"], class_names=["c", "b", "a"])
    assert (data.y.tolist(), data.classes, data.declared) == ([1, 2, 1, 1], 3, True)
    by_number = numbered(4, y=[1, 2, 1, 1], class_names=["c", "b", "a"])
    assert by_number.y.tolist() == [1, 2, 1, 1]
    years = numbered(4, y=[2020, 2019, 2020, 2020], class_names=["2019", "2020", "2021"])
    assert (years.y.tolist(), years.classes) == ([1, 0, 1, 1], 3)
    few = numbered(4, y=[1, 2, 1, 1], classes=5)
    assert (few.y.tolist(), few.classes, few.class_names) == ([1, 2, 1, 1], 5, ())
    assert numbered(4, y=[1, 2, 1, 1]).with_classes(5).y.tolist() == [1, 2, 1, 1], (
        "numbered apart, then declared"
    )
    for wrong in ({"class_names": ["a", "c"]}, {"classes": 1}, {"classes": 3}):
        with pytest.raises(DataError) as caught:
            numbered(4, y=["b", "a", "b", "b"], **wrong)
        assert "'b'" not in str(caught.value)


def test_names_of_several_parts_become_one_numbering() -> None:
    first, second = numbered(3, y=["b", "a", "b"]), numbered(3, y=["c", "a", "c"])
    joined = join([first, second], "both")
    assert (joined.class_names, joined.y.tolist()) == (("a", "b", "c"), [1, 0, 1, 2, 0, 2])
    clients = partition(
        [(first, None), (second, None)],
        FederationConfig(
            **OPEN, partition={"kind": "source", "clients": 2}, data={"sources": [{}] * 2}
        ),
    )
    assert {client.train.class_names for client in clients} == {("a", "b", "c")}


def test_private_runs_want_names_declared() -> None:
    names = np.asarray(["a", "b", "c"])[make_images(120).y.numpy()]
    tables: dict[str, Any] = {"privacy": {"unit": "example", "noise": 2.0, "epsilon": 60.0}}
    for found in (
        Dataset.from_arrays(make_images(120).x, names),
        Dataset.from_arrays(make_images(120).x, names, classes=3),
    ):
        with pytest.raises(DataError, match="read off private labels") as caught:
            Federation(tiny_config(**tables), data=found)
        assert "class_names" in caught.value.remedy
        told = Federation(tiny_config(**tables, data={"class_names": ["a", "b", "c"]}), data=found)
        assert told.factory.facts.classes == 3


def test_declared_names_must_agree() -> None:
    for wrong in ({"class_names": ["a", "a"]}, {"class_names": ["a", "b"], "classes": 3}):
        with pytest.raises(ConfigError):
            DataConfig(**wrong)


# Names of clients


def overheard(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All bytes that parties send each other from now on."""
    crossed: list[bytes] = []
    honest = LocalParties._tap

    def spied(self: LocalParties, sender: str, to: str, data: bytes | memoryview) -> Any:
        crossed.append(bytes(data))
        return honest(self, sender, to, data)

    monkeypatch.setattr(LocalParties, "_tap", spied)
    return crossed


def test_clients_keep_their_names_everywhere_but_in_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed = overheard(monkeypatch)
    images = make_images(90)
    owner = np.asarray(["ward-west", "ward-east", "ward-south"])[np.arange(90) // 3 % 3]
    labels = np.asarray(["u", "v", "w"])[images.y.numpy()]
    data = Dataset.from_arrays(images.x, labels, client=owner)
    tables = {
        "pretrain": {"mode": "none"},
        "partition": {"kind": "auto"},
        "data": {"validation_fraction": 0.1},
    }
    config = tiny_config(pools={"count": 1, "rounds": 2, "start": "random"}, **tables)
    federation = Federation(config, data=data)
    assert federation.config.partition.kind == "natural"
    names = ["ward-east", "ward-south", "ward-west"]
    assert [(client.id, client.name) for client in federation.clients] == [*enumerate(names)]
    federation.run(tmp_path / "run")
    card = load_card(tmp_path / "run")
    assert (card.class_names, card.client_names) == (("u", "v", "w"), tuple(names))
    written = json.loads((tmp_path / "run" / "partition.json").read_text())
    assert [client["name"] for client in written["clients"]] == names
    assert written["class_names"] == ["u", "v", "w"]
    tags = json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]["model/model.json"]
    assert (tags["class_names"], tags["client_names"]) == ("experimenter", "experimenter")
    named = {
        file.name
        for file in (tmp_path / "run").rglob("*")
        if file.is_file() and b"ward-" in file.read_bytes()
    }
    assert named == {"partition.json", "model.json"}
    assert len(crossed) > 6
    assert not [message for message in crossed if b"ward-" in message]


def test_names_in_errors_are_those_of_the_data_and_numbers_are_places() -> None:
    few = np.asarray(["big"] * 19 + ["tiny"])
    with pytest.raises(PartitionError, match="client 'tiny' holds too few"):
        deal(numbered(20, client=few))
    with pytest.raises(PartitionError, match="client 1 holds too few") as caught:
        deal(numbered(20, client=np.asarray([5] * 19 + [977])))
    assert "977" not in str(caught.value)


def test_equal_names_in_two_files_are_one_client() -> None:
    both = [
        (numbered(40, client=np.asarray(["a", "b"] * 20)), None),
        (numbered(40, client=np.asarray(["c", "b"] * 20)), None),
    ]
    clients = partition(both, FederationConfig(**OPEN))
    assert [(client.name, len(client.train) + len(client.test)) for client in clients] == [
        ("a", 20),
        ("b", 40),
        ("c", 20),
    ]
    with pytest.raises(PartitionError, match="no client column"):
        partition([both[0], (numbered(40), None)], FederationConfig(**OPEN))


# The kind that follows from the data


def test_the_kind_follows_from_the_data() -> None:
    owner = np.asarray(["a", "b"] * 20)
    assert len(deal(numbered(40, client=owner))) == 2
    assert [client.note for client in deal(numbered(48), clients=3)] == ["data"] * 3
    images = make_images(60)
    assert deal(images, clients=3)[1].note == "rotated 120°"
    assert len(deal(Dataset.from_arrays(images.x, images.y, client=np.arange(60) % 5))) == 5


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "label_permutation", "source"])
def test_real_clients_are_not_dissolved_unless_asked(kind: str) -> None:
    data = numbered(80, client=np.asarray(["a", "b"] * 40))
    with pytest.raises(PartitionError, match="would be dissolved") as caught:
        deal(data, kind=kind, clients=3)
    assert "partition.ignore_clients" in caught.value.remedy
    if kind != "source":
        assert len(deal(data, kind=kind, clients=4, ignore_clients=True)) == 4
    with pytest.raises(ConfigError, match="natural clients"):
        FederationConfig(**OPEN, partition={"kind": "natural", "ignore_clients": True})


def test_more_groups_than_clients_are_refused() -> None:
    with pytest.raises(ConfigError, match="more groups") as caught:
        FederationConfig(**OPEN, partition={"kind": "rotation", "clients": 4, "groups": 5})
    assert caught.value.field == "partition.groups"
    with pytest.raises(PartitionError, match="more groups"):
        deal(make_images(40), clients=4, groups=5)


def test_cohorts_are_checked_once_it_is_known_how_many_clients_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=make_images(90).x.numpy(), client=np.arange(90) % 3)
    source = {"name": "npz", "path": str(tmp_path / "own.npz")}
    config = FederationConfig(
        data={"sources": [source]}, partition={"clients": 2}, pools={"task": "self_supervised"}
    )
    with pytest.raises(SecureFLError, match="3 x 3 = 9"):
        Federation(config)


def test_a_kind_for_data_that_are_not_named_waits_for_them() -> None:
    waiting = {"kind": "dirichlet", "clients": 4}
    config = FederationConfig(partition=waiting)
    with pytest.raises(SecureFLError, match="3 x 3 = 9"):
        Federation(config, data=make_images(90))
    for known in (
        {"partition": {"clients": 4}},
        {"partition": waiting, "data": {"sources": [{"name": "digits"}]}},
    ):
        with pytest.raises(ConfigError, match="3 x 3 = 9"):
            FederationConfig(**known)


def test_rare_classes_stay_with_few_at_any_concentration() -> None:
    data = Dataset.from_arrays(torch.rand(2000, 2), torch.arange(10).repeat_interleave(200))
    skew = [
        summarise(deal(data, kind="dirichlet", clients=4, concentration=c)).label_skew
        for c in (10.0, 0.1, 1e-2, 1e-4, 1e-9, 1e-30)
    ]
    assert skew[0] < 0.2 < skew[1]
    assert min(skew[2:]) > 0.7
    with pytest.raises(PartitionError, match="fewer examples") as caught:
        deal(
            Dataset.from_arrays(torch.rand(200, 2), torch.zeros(200, dtype=torch.long)),
            kind="dirichlet",
            clients=4,
            concentration=1e-9,
        )
    assert caught.value.field == "partition.min_examples"


def test_a_newcomers_labels_are_matched_by_name(tmp_path: Path) -> None:
    from secure_fl.finished.assign import assign_pool

    images = make_images(90)
    names = np.asarray(["u", "v", "w"])[images.y.numpy()]
    config = tiny_config(
        pools={"rounds": 1, "start": "random", "local_epochs": 1},
        pretrain={"mode": "none"},
        evaluate={"probe_epochs": 0},
    )
    Federation(config, data=Dataset.from_arrays(images.x, names)).run(tmp_path / "run")
    found = []
    for labels in (names, np.where(names == "u", "w", names)):
        np.savez(tmp_path / "new.npz", x=images.x.numpy()[names != "v"], y=labels[names != "v"])
        found.append(assign_pool(tmp_path / "run", tmp_path / "new.npz").scores[0][0])
    assert found[0] != found[1]
    np.savez(
        tmp_path / "same.npz", x=images.x.numpy()[names != "v"], y=images.y.numpy()[names != "v"]
    )
    assert assign_pool(tmp_path / "run", tmp_path / "same.npz").scores[0][0] == found[0], (
        "the numbers of the names"
    )
    np.savez(tmp_path / "other.npz", x=images.x.numpy(), y=np.full(90, "z"))
    with pytest.raises(DataError, match="use the run's: u, v, w"):
        assign_pool(tmp_path / "run", tmp_path / "other.npz")


@pytest.mark.parametrize("kind", ["natural", "iid"])
def test_changed_labels_move_no_example_where_sketches_are_noised(kind: str) -> None:
    """What is sketched is what is trained on: were it chosen by labels, one label would move others
    in or out of a client's sketch.
    """
    x, y = torch.arange(240.0)[:, None].expand(240, 3).contiguous(), torch.arange(240) % 4
    owner = torch.arange(240) // 20 if kind == "natural" else None

    def trained(labels: torch.Tensor, **tables: Any) -> list[list[float]]:
        data = Dataset.from_arrays(x, labels, client=owner, classes=5)
        config = FederationConfig(
            partition={"kind": kind}, data={"validation_fraction": 0.1}, **tables
        )
        return [client.train.x[:, 0].tolist() for client in partition([(data, None)], config)]

    changed = y.clone()
    changed[::7] = 4
    assert FederationConfig().noises_sketches
    assert trained(y) == trained(changed)
    assert trained(y, security={"protection": "plain"}) != trained(
        changed, security={"protection": "plain"}
    ), "or this would show nothing"
