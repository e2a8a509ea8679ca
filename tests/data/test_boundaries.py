"""What must not depend on private data, and what must not be said of it: test sets, numbers of
classes, error messages.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config
from torch import Tensor

from secure_fl import Federation, FederationConfig
from secure_fl.config import DataConfig, PartitionConfig, SourceConfig
from secure_fl.data import holdout, partitions
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.partitions import ClientData, partition
from secure_fl.data.sources import load_source, load_sources
from secure_fl.data.sources.idx import read_idx
from secure_fl.data.transforms import transforms_for
from secure_fl.data.views import check_range
from secure_fl.errors import DataError, SecureFLError
from secure_fl.finished.assign import assign_pool

# Test and validation sets


def numbered(labels: Tensor, client: Tensor | None = None) -> Dataset:
    """Vectors that carry their own number."""
    x = torch.arange(len(labels), dtype=torch.float32)[:, None].repeat(1, 2)
    return Dataset.from_arrays(x, labels, client=client, classes=4)


def numbers(data: Dataset) -> list[int]:
    return data.x[:, 0].int().tolist()


OPEN: dict[str, Any] = {"security": {"protection": "plain"}, "pools": {"enabled": False}}
"""Nothing is summed or pooled, so any number of clients will do."""
KINDS: list[dict[str, Any]] = [
    {"kind": "iid", "clients": 5},
    {"kind": "dirichlet", "clients": 4, "concentration": 0.3},
    {"kind": "shards", "clients": 4},
    {"kind": "label_permutation", "clients": 4, "groups": 2},
    {"kind": "natural"},
]


def changed_test_sets(spec: dict[str, Any], unit: str) -> list[int]:
    """Clients whose test set, or training set before it was dealt, is another when one training
    example's label is.
    """
    config = FederationConfig(
        partition=spec, privacy={"unit": unit}, data={"validation_fraction": 0.1}, **OPEN
    )
    owner = torch.arange(240) % 3 if spec["kind"] == "natural" else None
    first = partition([(numbered(torch.arange(240) % 4, owner), None)], config)
    tested = {number for client in first for number in numbers(client.test)}
    changed = []
    for one in [number for number in range(240) if number not in tested][:6]:
        labels = torch.arange(240) % 4
        labels[one] = (labels[one] + 1) % 4
        second = partition([(numbered(labels, owner), None)], config)
        changed += [
            client.id
            for client, other in zip(first, second, strict=True)
            if numbers(client.test) != numbers(other.test)
        ]
        if spec["kind"] in ("iid", "natural"):
            changed += [
                a.id
                for a, b in zip(first, second, strict=True)
                if numbers(a.validation) != numbers(b.validation)
            ]
    return changed


@pytest.mark.parametrize("unit", ["example", "client"])
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_private_test_sets_follow_from_no_training_label(spec: dict[str, Any], unit: str) -> None:
    assert changed_test_sets(spec, unit) == []


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["kind"])
def test_test_sets_drawn_by_training_labels_are_found(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (partitions, holdout):
        monkeypatch.setattr(module, "labels_are_private", lambda config: False)
    assert changed_test_sets(spec, "example")


def test_private_test_sets_are_of_the_clients_own_transform_and_size() -> None:
    config = tiny_config(
        privacy={"unit": "example"}, data={"test_limit": 9}, partition={"clients": 4, "groups": 4}
    )
    images = make_images(200)
    for client in partition([(images, None)], config):
        back = torch.rot90(client.test.x, -client.id, (-2, -1))
        assert len(client.test) == 9
        assert all(bool((images.x == x).flatten(1).all(1).any()) for x in back)
        assert not any(bool((client.train.x == x).flatten(1).all(1).any()) for x in client.test.x)


def test_another_clients_size_moves_nobodys_split() -> None:
    config = FederationConfig(**OPEN, partition={"kind": "natural"}, privacy={"unit": "client"})
    sizes = (30, 40), (37, 40)
    dealt: list[list[ClientData]] = []
    for first, second in sizes:
        x = [
            torch.arange(count, dtype=torch.float32)[:, None] + torch.zeros(1, 3)
            for count in (first, second)
        ]
        dealt.append(
            partition([(Dataset.from_clients([(part, None) for part in x]), None)], config)
        )
    assert numbers(dealt[0][1].test) == numbers(dealt[1][1].test)


# Numbers of classes


def undeclared(data: Dataset) -> Dataset:
    return replace(data, declared=False)


@pytest.mark.parametrize("unit", ["example", "client"])
def test_private_models_are_made_for_a_declared_number_of_classes(unit: str) -> None:
    tables: dict[str, Any] = {
        "privacy": {"unit": unit, "noise": 2.0, "epsilon": 60.0, "min_clients": 3}
    }
    found = undeclared(make_images(120))
    with pytest.raises(DataError, match="read off private labels") as caught:
        Federation(tiny_config(**tables), data=found)
    assert "data.classes" in caught.value.remedy
    told = Federation(tiny_config(**tables, data={"classes": 5}), data=found)
    assert told.factory.facts.classes == 5
    assert Federation(tiny_config(**tables), data=make_images(120)).factory.facts.classes == 3
    without = Federation(tiny_config(**tables, pools={"enabled": False}), data=found)
    assert without.factory.facts.classes == 0, "nothing is made for classes"
    assert Federation(tiny_config(), data=found).factory.facts.classes == 3


def test_who_declares_classes(tmp_path: Path) -> None:
    assert load_source(SourceConfig(), DataConfig(), 0)[0].declared
    np.savez(
        tmp_path / "own.npz", x=np.random.default_rng(0).random((20, 1, 8, 8)), y=np.arange(20) % 2
    )
    source = SourceConfig(name="npz", path=str(tmp_path / "own.npz"))
    ((read, _),) = load_sources(DataConfig(sources=(source,)), 0)
    ((told, _),) = load_sources(DataConfig(sources=(source,), classes=6), 0)
    assert (read.classes, read.declared, told.classes, told.declared) == (2, False, 6, True)
    assert not join([read, told], "both").declared
    assert join([told, told], "both").declared
    parts = Dataset.from_clients(
        [(torch.zeros(2, 3), torch.tensor([0, 1])), (torch.ones(1, 3), None)], classes=4
    )
    assert (parts.classes, parts.declared, parts.take(torch.tensor([0])).declared) == (
        4,
        True,
        True,
    )
    with pytest.raises(DataError, match=r"outside 0\.\.0"):
        read.with_classes(1)


# Messages

COUNT = 41
"""Examples in every set below: a number that appears in no setting."""


def told(action: Callable[[], object]) -> str:
    with pytest.raises(SecureFLError) as caught:
        action()
    chain: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__
    return "\n".join(chain)


def loud(value: float) -> Tensor:
    x = torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[17, 0, 3, 5] = value
    return x


def _npz(folder: Path, **arrays: np.ndarray) -> SourceConfig:
    np.savez(folder / "own.npz", **arrays)
    return SourceConfig(name="npz", path=str(folder / "own.npz"))


def _damaged(folder: Path, content: bytes, name: str) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _idx(count: int) -> bytes:
    return (
        b"\0\0\x08\x03"
        + (COUNT).to_bytes(4, "big")
        + (8).to_bytes(4, "big") * 2
        + bytes(count * 64)
    )


def _file_cases(folder: Path, images: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    config = DataConfig()
    return {
        "npz labels": lambda: load_source(
            _npz(folder, x=images.numpy(), y=labels.numpy() - 8765), config, 0
        ),
        "npz length": lambda: load_source(
            _npz(folder, x=images.numpy(), y=labels.numpy()[:37]), config, 0
        ),
        "npz axes": lambda: load_source(
            _npz(folder, x=np.zeros((COUNT, 6))).model_copy(update={"kind": "image"}), config, 0
        ),
        "npz bytes": lambda: load_source(
            SourceConfig(name="npz", path=str(_damaged(folder, b"8765" * 9, "torn.npz"))), config, 0
        ),
        "npy bytes": lambda: load_source(
            SourceConfig(name="npz", path=str(_damaged(folder, b"\x93NUMPY8765" * 9, "torn.npy"))),
            config,
            0,
        ),
        "gz bytes": lambda: read_idx(_damaged(folder, b"8765" * 9, "torn.gz")),
        "idx bytes": lambda: read_idx(_damaged(folder, b"8765" * 9, "torn")),
        "idx short": lambda: read_idx(_damaged(folder, _idx(37), "short")),
        "idx long": lambda: read_idx(_damaged(folder, gzip.compress(_idx(53)), "long.gz")),
    }


def _cases(folder: Path) -> dict[str, Callable[[], object]]:
    labels = torch.arange(COUNT) % 4
    own, images = Dataset.from_arrays, torch.rand(COUNT, 1, 8, 8)
    spec, grouped = PartitionConfig, numbered(labels, torch.tensor([0] * (COUNT - 1) + [977]))
    natural = FederationConfig(**OPEN, partition={"kind": "natural", "min_examples": 3})
    return {
        "pixels": lambda: check_range(own(loud(1.2345678))),
        "dark pixels": lambda: check_range(own(loud(-7.7531))),
        "a run's pixels": lambda: Federation(tiny_config(), data=own(loud(1.2345678), labels)),
        "nan": lambda: own(loud(float("nan"))),
        "infinity": lambda: own(loud(float("inf"))),
        "low labels": lambda: own(images, labels - 8765),
        "high labels": lambda: own(images, labels + 8765, classes=4),
        "high labels in a run": lambda: Federation(
            tiny_config(data={"classes": 3}), data=own(images, labels + 8765)
        ),
        "label count": lambda: own(images, labels[:37]),
        "label kind": lambda: own(images, labels + 0.37),
        "scalars": lambda: own(torch.zeros(COUNT)),
        "text": lambda: own(np.array([["8765"] * 3] * COUNT)),
        "ragged": lambda: own([[8765.0], [1.0, 8765.0]]),  # type: ignore[arg-type]
        "shapes": lambda: join([own(images), own(torch.rand(37, 1, 9, 9))], "both"),
        "clients": lambda: partition(
            [(own(images, labels), None)],
            FederationConfig(**OPEN, partition={"kind": "iid", "clients": 500}),
        ),
        "few": lambda: partition(
            [(own(images, labels), None)],
            FederationConfig(**OPEN, partition={"kind": "iid", "clients": 30, "min_examples": 20}),
        ),
        "natural": lambda: partition([(grouped, None)], natural),
        "rotation": lambda: transforms_for(spec(kind="rotation"), own(torch.zeros(COUNT, 3)), 0),
        **_file_cases(folder, images, labels),
    }


@pytest.mark.parametrize("case", sorted(_cases(Path())))
def test_messages_show_no_value_no_extreme_and_no_number_of_examples(
    tmp_path: Path, case: str
) -> None:
    message = told(_cases(tmp_path)[case]).replace(str(tmp_path), "")
    assert "Remedy: " in message
    for secret in (
        "1.23",
        "7.75",
        "876",
        "875",
        "0.37",
        "977",
        str(COUNT),
        str(COUNT - 1),
        "37",
        "53",
        "17",
        "38373635",
    ):
        assert secret not in message, message


def test_a_message_that_shows_an_extreme_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(data: Dataset) -> None:
        raise DataError(
            "images outside [0, 1]",
            field="x",
            value=(float(data.x.min()), float(data.x.max())),
            remedy="scale them",
        )

    monkeypatch.setitem(globals(), "check_range", shown)
    with pytest.raises(AssertionError, match="1\\.23"):
        test_messages_show_no_value_no_extreme_and_no_number_of_examples(tmp_path, "pixels")


def test_no_text_of_an_object_shows_examples(images: Dataset) -> None:
    client = Federation(tiny_config(), data=images).clients[0]
    for holder in (images, client):
        assert "tensor" not in repr(holder)
    error = DataError("odd", field="x", value=[images.x, {"y": images.y.numpy()}], remedy="none")
    assert "[Tensor of one row's shape (1, 8, 8), {'y': ndarray of one row's shape ()}]" in str(
        error
    )


def test_a_newcomers_labels_are_not_said(tmp_path: Path) -> None:
    config = tiny_config(
        pretrain={"mode": "none"}, pools={"start": "random", "rounds": 1, "local_epochs": 1}
    )
    Federation(config, data=make_images(80)).run(tmp_path / "run")
    np.savez(tmp_path / "new.npz", x=make_images(COUNT).x.numpy(), y=np.arange(COUNT) % 2 + 8765)
    message = told(lambda: assign_pool(tmp_path / "run", tmp_path / "new.npz"))
    assert "labels outside" in message
    assert "876" not in message
