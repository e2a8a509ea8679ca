"""Names of clients and labels, splits and groups that the data bring, and the partition that follows from the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.artifacts import load_card
from secure_fl.cli.partition_table import partition_table
from secure_fl.config import DataConfig
from secure_fl.data.dataset import join
from secure_fl.data.holdout import hold_out
from secure_fl.data.partitions import ClientData, partition
from secure_fl.data.summary import PartitionSummary, summarise
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.errors import ConfigError, DataError, PartitionError, SecureFLError
from secure_fl.federation.state import State

OPEN: dict[str, Any] = {"security": {"protection": "plain"}, "pools": {"enabled": False}}


def numbered(count: int, **columns: Any) -> Dataset:
    """Vectors that carry their own number."""
    x = torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 2)
    return Dataset.from_arrays(x, columns.pop("y", torch.arange(count) % 4), **columns)


def numbers(*parts: Dataset) -> set[int]:
    return {int(n) for part in parts for n in part.x[:, 0].tolist()}


def deal(data: Dataset, table: dict[str, Any] | None = None, privacy: str = "none", **spec: Any) -> list[ClientData]:
    return partition([(data, None)], FederationConfig(data=table or {}, partition=spec, privacy={"unit": privacy}, **OPEN))


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
def test_labels_are_numbered_without_gaps(labels: Any, names: tuple[str, ...], y: list[int]) -> None:
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
    assert numbered(4, y=[1, 2, 1, 1]).with_classes(5).y.tolist() == [1, 2, 1, 1], "numbered apart, then declared"
    for wrong in ({"class_names": ["a", "c"]}, {"classes": 1}, {"classes": 3}):
        with pytest.raises(DataError) as caught:
            numbered(4, y=["b", "a", "b", "b"], **wrong)
        assert "'b'" not in str(caught.value)


def test_names_of_several_parts_become_one_numbering() -> None:
    first, second = numbered(3, y=["b", "a", "b"]), numbered(3, y=["c", "a", "c"])
    joined = join([first, second], "both")
    assert (joined.class_names, joined.y.tolist()) == (("a", "b", "c"), [1, 0, 1, 2, 0, 2])
    clients = partition(
        [(first, None), (second, None)], FederationConfig(**OPEN, partition={"kind": "source", "clients": 2}, data={"sources": [{}] * 2})
    )
    assert {client.train.class_names for client in clients} == {("a", "b", "c")}


def test_private_runs_want_names_declared() -> None:
    names = np.asarray(["a", "b", "c"])[make_images(120).y.numpy()]
    tables: dict[str, Any] = {"privacy": {"unit": "example", "noise": 2.0, "epsilon": 60.0}}
    for found in (Dataset.from_arrays(make_images(120).x, names), Dataset.from_arrays(make_images(120).x, names, classes=3)):
        with pytest.raises(DataError, match="read off private labels") as caught:
            Federation(tiny_config(**tables), data=found)
        assert "class_names" in caught.value.remedy
        told = Federation(tiny_config(**tables, data={"class_names": ["a", "b", "c"]}), data=found)
        assert told.blueprint.classes == 3


def test_declared_names_must_agree() -> None:
    for wrong in ({"class_names": ["a", "a"]}, {"class_names": ["a", "b"], "classes": 3}):
        with pytest.raises(ConfigError):
            DataConfig(**wrong)


# Names of clients


def told(message: object) -> str:
    """Everything that a message holds but numbers, as text."""
    if isinstance(message, dict):
        return " ".join(told(item) for pair in message.items() for item in pair)
    if isinstance(message, list | tuple):
        return " ".join(map(told, message))
    return told(vars(message)) if hasattr(message, "__dataclass_fields__") else str(message) if isinstance(message, str) else ""


def test_clients_keep_their_names_everywhere_but_in_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed: list[str] = []
    honest = EmbeddedEngine.answers

    def spied(engine: EmbeddedEngine, state: State, places: Any) -> Iterator[tuple[int, Any]]:
        crossed.append(told(dict(state.facts)) + told(dict(state.tensors)))
        for client, answer in honest(engine, state, places):
            crossed.append(told(answer.blocks))
            yield client, answer

    monkeypatch.setattr(EmbeddedEngine, "answers", spied)
    images = make_images(90)
    owner = np.asarray(["ward-west", "ward-east", "ward-south"])[np.arange(90) // 3 % 3]
    data = Dataset.from_arrays(images.x, np.asarray(["u", "v", "w"])[images.y.numpy()], client=owner)
    tables = {"pretrain": {"mode": "none"}, "partition": {"kind": "auto"}, "data": {"validation_fraction": 0.1}}
    config = tiny_config(pools={"count": 1, "rounds": 2, "start": "random"}, **tables)
    federation = Federation(config, data=data)
    assert federation.config.partition.kind == "natural"
    assert [(client.id, client.name) for client in federation.clients] == [(0, "ward-east"), (1, "ward-south"), (2, "ward-west")]
    federation.run(tmp_path / "run")
    card = load_card(tmp_path / "run")
    assert (card.class_names, card.client_names) == (("u", "v", "w"), ("ward-east", "ward-south", "ward-west"))
    written = json.loads((tmp_path / "run" / "partition.json").read_text())
    assert [client["name"] for client in written["clients"]] == ["ward-east", "ward-south", "ward-west"]
    assert written["class_names"] == ["u", "v", "w"]
    tags = json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]["model/model.json"]
    assert (tags["class_names"], tags["client_names"]) == ("experimenter", "experimenter")
    named = {file.name for file in (tmp_path / "run").rglob("*") if file.is_file() and b"ward-" in file.read_bytes()}
    assert named == {"partition.json", "model.json"}
    assert len(crossed) > 6
    assert not [message for message in crossed if "ward" in message or "client" in message]


def test_names_in_errors_are_those_of_the_data_and_numbers_are_places() -> None:
    few = np.asarray(["big"] * 19 + ["tiny"])
    with pytest.raises(PartitionError, match="client 'tiny' holds too few"):
        deal(numbered(20, client=few))
    with pytest.raises(PartitionError, match="client 1 holds too few") as caught:
        deal(numbered(20, client=np.asarray([5] * 19 + [977])))
    assert "977" not in str(caught.value)


def test_equal_names_in_two_files_are_one_client() -> None:
    both = [(numbered(40, client=np.asarray(["a", "b"] * 20)), None), (numbered(40, client=np.asarray(["c", "b"] * 20)), None)]
    clients = partition(both, FederationConfig(**OPEN))
    assert [(client.name, len(client.train) + len(client.test)) for client in clients] == [("a", 20), ("b", 40), ("c", 20)]
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
    config = FederationConfig(data={"sources": [source]}, partition={"clients": 2}, pools={"task": "self_supervised"})
    with pytest.raises(SecureFLError, match="3 x 3 = 9"):
        Federation(config)


def test_a_kind_for_data_that_are_not_named_waits_for_them() -> None:
    waiting = {"kind": "dirichlet", "clients": 4}
    config = FederationConfig(partition=waiting)
    with pytest.raises(SecureFLError, match="3 x 3 = 9"):
        Federation(config, data=make_images(90))
    for known in ({"partition": {"clients": 4}}, {"partition": waiting, "data": {"sources": [{"name": "digits"}]}}):
        with pytest.raises(ConfigError, match="3 x 3 = 9"):
            FederationConfig(**known)


def test_rare_classes_stay_with_few_at_any_concentration() -> None:
    data = Dataset.from_arrays(torch.rand(2000, 2), torch.arange(10).repeat_interleave(200))
    skew = [summarise(deal(data, kind="dirichlet", clients=4, concentration=c)).label_skew for c in (10.0, 0.1, 1e-2, 1e-4, 1e-9, 1e-30)]
    assert skew[0] < 0.2 < skew[1]
    assert min(skew[2:]) > 0.7
    with pytest.raises(PartitionError, match="fewer examples") as caught:
        deal(Dataset.from_arrays(torch.rand(200, 2), torch.zeros(200, dtype=torch.long)), kind="dirichlet", clients=4, concentration=1e-9)
    assert caught.value.field == "partition.min_examples"


# Splits and groups

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
    clients = deal(numbered(120, y=torch.arange(120) // 7 % 4, split=SPLIT, client=owner), None, privacy, **spec)
    assert numbers(*(client.train for client in clients)) == {n for n in range(120) if n % 4 < 2}
    validation = [n for client in clients for n in numbers(client.validation)]
    assert sorted(validation) == [n for n in range(120) if n % 4 == 2], "each with one client"
    assert numbers(*(client.test for client in clients)) <= {n for n in range(120) if n % 4 == 3}
    assert all(len(client.test) for client in clients)


def test_a_split_without_tests_is_held_out_of_training() -> None:
    clients = deal(numbered(120, split=np.asarray(["train", "valid"] * 60)), kind="iid", clients=3)
    assert numbers(*(client.test for client in clients)) <= set(range(0, 120, 2))
    assert not numbers(*(client.test for client in clients)) & numbers(*(client.train for client in clients))


@pytest.mark.parametrize("spelling", [["train", "val", "test"], ["Training", "valid", "TEST"], [0, 1, 2], ["0", "1", "2"], [0.0, 1.0, 2.0]])
def test_splits_in_every_spelling(spelling: list[Any]) -> None:
    data = numbered(9, split=np.asarray(spelling * 3))
    assert data.split is not None
    assert data.split.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("wrong", [["train", "later"], [0, 3], ["test", "test"], [1, 2], ["train", None]])
def test_other_splits_are_refused(wrong: list[Any]) -> None:
    with pytest.raises(DataError) as caught:
        numbered(2, split=wrong)
    assert caught.value.field == "data.split"


def test_sources_with_and_without_tests_are_held_out_one_by_one() -> None:
    split = numbered(40, split=np.asarray(["train", "test"] * 20))
    other = Dataset.from_arrays(numbered(40).x + 1000, numbered(40).y)
    clients = partition([(split, None), (other, None)], FederationConfig(**OPEN, partition={"kind": "iid", "clients": 2}))
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
    assert all(len(client.train) == 5 * len(mine) for client, mine in zip(clients, trained, strict=True))


def test_groups_of_one_example_are_dealt_as_examples_are() -> None:
    """Numbered the other way round: a group's number is not its example's place."""
    data = numbered(400, y=torch.arange(400) // 100, group=np.arange(400)[::-1].copy())
    clients = deal(data, kind="shards", clients=4, shards_per_client=1)
    assert max(len(client.train.y.unique()) for client in clients) <= 2
    _, held = hold_out(data, 0.2, data.y, torch.Generator().manual_seed(0))
    assert held.y.bincount().tolist() == [20] * 4, "held out by label"


def test_clients_that_choose_on_validation_examples_need_some() -> None:
    config = tiny_config(data={"validation_fraction": 0.1}, pools={"select_on": "validation"}, partition={"clients": 4})
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
    joined = join([numbered(4, group=["p", "p", "q", "q"]), numbered(4), numbered(4, group=["p", "p", "p", "r"])], "all")
    assert joined.group is not None
    assert joined.group.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 7]


# The terminal's table


def summary_of(classes: int, clients: int = 3, name: str = "a ward with a very long name") -> PartitionSummary:
    images = make_images(60 * clients, classes=classes)
    owner = [f"{name} {number}" for number in range(clients)] * 60
    return summarise(partition([(Dataset.from_arrays(images.x, images.y, client=owner), None)], FederationConfig(**OPEN)))


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("classes", [3, 10, 200])
def test_the_table_fits_the_terminal_and_pictures_label_shares(width: int, classes: int) -> None:
    summary = summary_of(3) if classes == 3 else summary_of(10)
    if classes == 200:
        rows = tuple(type(row)(**{**vars(row), "labels": row.labels * 20}) for row in summary.clients)
        summary = PartitionSummary(summary.shape, 200, summary.label_skew, rows)
    for encoding in ("utf-8", "ascii", "cp1252", "no such encoding"):
        columns, rows_shown = partition_table(summary, width, encoding)
        widths = [max(len(name), *(len(str(row[i])) for row in rows_shown)) + 2 for i, name in enumerate(columns)]
        assert sum(widths) <= width
        assert {"client", "train", "labels"} <= set(columns)
        bars = [str(row[columns.index("labels")]) for row in rows_shown]
        assert all(bar.isascii() for bar in bars) == (encoding != "utf-8")
        assert len({len(bar) for bar in bars}) == 1


def test_bars_follow_the_labels_a_client_holds() -> None:
    x, y, owner = torch.rand(90, 2), np.repeat([0, 1, 2], 30), np.repeat(["a", "b", "c"], 30)
    summary = summarise(deal(Dataset.from_arrays(x, y, client=owner)))
    columns, rows = partition_table(summary, 80, "utf-8")
    assert [row[columns.index("labels")] for row in rows] == ["|█  |", "| █ |", "|  █|"]
    assert [row[columns.index("client")] for row in rows] == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (5, 8, 8), (2, 40), (6,)])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_picture_shows_the_partition_and_examples(tmp_path: Path, shape: tuple[int, ...], labelled: bool) -> None:
    pytest.importorskip("matplotlib")
    from secure_fl.cli.pictures import one_a_class, save_examples

    names = np.asarray(["u", "v", "w"])[np.arange(60) % 3] if labelled else None
    clients = deal(Dataset.from_arrays(torch.rand(60, *shape), names, client=np.asarray(["n", "s"] * 30)))
    assert [title for title, _ in one_a_class(clients)] == (["u", "v", "w"] if labelled else ["n", "s"])
    save_examples(summarise(clients), clients, tmp_path / "who.svg")
    drawn = (tmp_path / "who.svg").read_text()
    assert drawn.startswith("<?xml")
    with pytest.raises(ConfigError, match="plot"):
        save_examples(summarise(clients), clients, tmp_path / "who.txt")


def test_a_newcomers_labels_are_matched_by_name(tmp_path: Path) -> None:
    from secure_fl.assign import assign_pool

    images = make_images(90)
    names = np.asarray(["u", "v", "w"])[images.y.numpy()]
    config = tiny_config(pools={"rounds": 1, "start": "random", "local_epochs": 1}, pretrain={"mode": "none"}, evaluate={"probe_epochs": 0})
    Federation(config, data=Dataset.from_arrays(images.x, names)).run(tmp_path / "run")
    found = []
    for labels in (names, np.where(names == "u", "w", names)):
        np.savez(tmp_path / "new.npz", x=images.x.numpy()[names != "v"], y=labels[names != "v"])
        found.append(assign_pool(tmp_path / "run", tmp_path / "new.npz").scores[0][0])
    assert found[0] != found[1]
    np.savez(tmp_path / "same.npz", x=images.x.numpy()[names != "v"], y=images.y.numpy()[names != "v"])
    assert assign_pool(tmp_path / "run", tmp_path / "same.npz").scores[0][0] == found[0], "the numbers of the names"
    np.savez(tmp_path / "other.npz", x=images.x.numpy(), y=np.full(90, "z"))
    with pytest.raises(DataError, match="use the run's: u, v, w"):
        assign_pool(tmp_path / "run", tmp_path / "other.npz")


@pytest.mark.parametrize("kind", ["natural", "iid"])
def test_changed_labels_move_no_example_where_sketches_are_noised(kind: str) -> None:
    """What is sketched is what is trained on: were it chosen by labels, one label would move others in or out of a client's sketch."""
    x, y = torch.arange(240.0)[:, None].expand(240, 3).contiguous(), torch.arange(240) % 4
    owner = torch.arange(240) // 20 if kind == "natural" else None

    def trained(labels: torch.Tensor, **tables: Any) -> list[list[float]]:
        data = Dataset.from_arrays(x, labels, client=owner, classes=5)
        config = FederationConfig(partition={"kind": kind}, data={"validation_fraction": 0.1}, **tables)
        return [client.train.x[:, 0].tolist() for client in partition([(data, None)], config)]

    changed = y.clone()
    changed[::7] = 4
    assert FederationConfig().noises_sketches
    assert trained(y) == trained(changed)
    assert trained(y, security={"protection": "plain"}) != trained(changed, security={"protection": "plain"}), "or this would show nothing"
