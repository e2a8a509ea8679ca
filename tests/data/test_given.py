"""One door for data from Python: everything that holds examples, and a typed refusal of
everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config

from secure_fl import Dataset, Federation
from secure_fl.data.tables import aligned
from secure_fl.errors import DataError, SecureFLError

X, Y = torch.rand(6, 1, 8, 8), torch.arange(6) % 3


class Column(list[Any]):
    """As Hugging Face's."""


class FakeHuggingFace:
    """What `datasets.Dataset` shows of itself."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
        self._columns, self.column_names, self.shape = (
            columns,
            list(columns),
            (len(next(iter(columns.values()))), len(columns)),
        )
        self.features = {
            name: type("ClassLabel", (), {"names": names if name == "label" else None})()
            for name in columns
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | str) -> Any:
        return (
            Column(self._columns[key])
            if isinstance(key, str)
            else {name: values[key] for name, values in self._columns.items()}
        )


class FakePolars:
    """What a polars frame shows of itself: its columns are names and series with `__array__`."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns, self.columns, self.shape = (
            columns,
            list(columns),
            (len(next(iter(columns.values()))), len(columns)),
        )

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]


class FakeTorch(torch.utils.data.Dataset[Any]):
    """A map-style dataset with class names, as torchvision's."""

    classes = ("cat", "dog", "horse")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return X[i], int(Y[i])


class Endless(torch.utils.data.IterableDataset[Any]):
    """Without a length, as a stream of Hugging Face's."""

    column_names, features = ("x",), {"x": None}

    def __iter__(self) -> Any:
        while True:
            yield X[0]


class Raising(FakeTorch):
    def __getitem__(self, i: int) -> Any:
        raise RuntimeError("secret")


def grey_pictures() -> list[Any]:
    from PIL import Image

    return [Image.new("L", (9, 8), 40 * i) for i in range(6)]


def frame() -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "a": np.arange(6.0),
            "kind": ["u", "v"] * 3,
            "client": ["n", "s", "n"] * 2,
            "label": [10, 20, 30] * 2,
        }
    )


def arrow() -> Any:
    import pyarrow

    return pyarrow.table(
        {
            "a": np.arange(6.0),
            "kind": ["u", "v"] * 3,
            "client": ["n", "s", "n"] * 2,
            "label": [10, 20, 30] * 2,
        }
    )


IMAGES: dict[str, Callable[[], Any]] = {
    "a dataset": lambda: Dataset.from_arrays(X, Y),
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "a mapping": lambda: {"x": X, "y": Y},
    "torch": FakeTorch,
    "tensor dataset": lambda: torch.utils.data.TensorDataset(X, Y),
    "a subset": lambda: torch.utils.data.Subset(FakeTorch(), range(6)),
    "hugging face": lambda: FakeHuggingFace(
        {"x": X.tolist(), "label": Y.tolist()}, ["cat", "dog", "horse"]
    ),
}


@pytest.mark.parametrize("form", IMAGES)
def test_images_in_every_form_are_the_same(form: str) -> None:
    data = Dataset.of(IMAGES[form]())
    torch.testing.assert_close(data.x, X)
    assert data.y.tolist() == Y.tolist()
    assert data.classes == 3
    named = form in ("torch", "hugging face")
    assert data.class_names == (("cat", "dog", "horse") if named else ())
    assert data.declared == named


@pytest.mark.parametrize(
    "form",
    [
        frame,
        arrow,
        lambda: FakePolars({name: np.asarray(frame()[name]) for name in frame().columns}),
    ],
)
def test_frames_in_every_form_are_the_same(form: Callable[[], Any]) -> None:
    data = Dataset.of(form())
    assert data.columns == ("a", "kind=u", "kind=v")
    assert (data.class_names, data.client_names) == (("10", "20", "30"), ("n", "s"))
    data = Dataset.of(form(), features=["a"], label="kind", client="label")
    assert (data.columns, data.class_names, data.client_names) == (
        ("a",),
        ("u", "v"),
        ("10", "20", "30"),
    )
    with pytest.raises(DataError, match="no such column"):
        Dataset.of(form(), label="nothing")


def test_frames_with_holes_name_the_column() -> None:
    pd = pytest.importorskip("pandas")
    for values in (
        [1.0, None],
        ["a", None],
        pd.array([1, None], dtype="Int64"),
        pd.array(["a", None], dtype="string"),
    ):
        for role in ({}, {"label": "hole"}):
            with pytest.raises(DataError, match="missing") as caught:
                Dataset.of(pd.DataFrame({"a": [1, 2], "hole": values}), **role)
            assert caught.value.field == "data.hole"


def test_pictures_of_hugging_face_and_its_splits() -> None:
    pytest.importorskip("PIL")
    train, test = (
        FakeHuggingFace({"image": grey_pictures(), "label": Y.tolist()}, ["a", "b", "c"])
        for _ in range(2)
    )
    data = Dataset.of({"train": train, "test": test})
    assert data.shape == (1, 8, 9)
    assert float(data.x[5, 0, 0, 0]) == pytest.approx(200 / 255)
    assert data.split is not None
    assert data.split.tolist() == [0] * 6 + [2] * 6
    table = Dataset.of(FakeHuggingFace({"a": [1.0, 2.0], "b": ["u", "v"], "label": [0, 1]}))
    assert table.columns == ("a", "b=u", "b=v")


def test_a_federation_takes_what_the_door_takes() -> None:
    images = make_images(60)
    federation = Federation(tiny_config(), data=(images.x, images.y))
    assert federation.config.partition.kind == "rotation"
    assert Federation(
        tiny_config(data={"class_names": ["a", "b", "c"]}), data=(images.x, images.y)
    ).clients[0].train.class_names == ("a", "b", "c")


CLIENTS = [(make_images(30, seed).x, make_images(30, seed).y) for seed in range(3)]


def test_clients_in_every_form() -> None:
    pairs = Dataset.from_clients(CLIENTS)
    assert pairs.client_names == ()
    named = Dataset.from_clients(
        {"west": CLIENTS[0], "east": list(CLIENTS[1]), "north": Dataset.from_arrays(*CLIENTS[2])}
    )
    assert named.client_names == ("east", "north", "west")
    assert named.client is not None
    assert named.client.tolist() == [2] * 30 + [0] * 30 + [1] * 30
    torch.testing.assert_close(named.x, pairs.x)
    alone = Dataset.from_clients([x for x, _ in CLIENTS])
    assert not alone.labelled
    assert [
        client.name
        for client in Federation(
            tiny_config(partition={"kind": "auto"}, pools={"count": 1}), data=named
        ).clients
    ] == [
        "east",
        "north",
        "west",
    ]
    labels = Dataset.from_clients(
        {"a": (torch.rand(3, 4), ["u", "v", "u"]), "b": (torch.rand(2, 4), ["w", "v"])}
    )
    assert (labels.class_names, labels.y.tolist()) == (("u", "v", "w"), [0, 1, 0, 2, 1])
    parts = Dataset.from_clients([(torch.rand(2, 4), [0, 1]), (torch.rand(2, 4), [2, 3])])
    assert (parts.class_names, parts.classes, parts.y.tolist()) == ((), 4, [0, 1, 2, 3])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: Dataset.of(5), "data"),
    "nothing": (lambda: Dataset.of(None), "data"),
    "text": (lambda: Dataset.of("data.npz"), "data"),
    "an empty list": (lambda: Dataset.of([]), "data"),
    "pairs in a list": (lambda: Dataset.of(CLIENTS), "data"),
    "three arrays": (lambda: Dataset.of((X, Y, Y)), "data"),
    "a mapping without x": (lambda: Dataset.of({"y": Y}), "data.x"),
    "a mapping of clients": (lambda: Dataset.of({"a": (X, Y)}), "data.x"),
    "an unknown array": (lambda: Dataset.of({"x": X, "labels": Y}), "data.labels"),
    "objects": (lambda: Dataset.of(np.array([{}, {}], object)), "data.x"),
    "ragged lists": (lambda: Dataset.of([[1.0, 2.0], [3.0]]), "data.x"),
    "ragged tensors": (lambda: Dataset.of([torch.zeros(2), torch.zeros(3)]), "data.x"),
    "another length": (lambda: Dataset.of((X, Y[:4])), "data.y"),
    "a scalar": (lambda: Dataset.of(torch.tensor(1.0)), "data.x"),
    "a sparse tensor": (lambda: Dataset.of(torch.zeros(3, 4).to_sparse()), "data.x"),
    "complex numbers": (lambda: Dataset.of(torch.zeros(3, 4, dtype=torch.complex64)), "data.x"),
    "an unknown argument": (lambda: Dataset.of(X, labels=Y), "labels"),
    "y twice": (lambda: Dataset.of((X, Y), y=Y), "data.y"),
    "an object": (lambda: Dataset.of(object()), "data"),
    "a set": (lambda: Dataset.of({1, 2}), "data"),
    "an empty torch dataset": (lambda: Dataset.of(torch.utils.data.TensorDataset(X[:0])), "data"),
    "a stream": (lambda: Dataset.of(Endless()), "data"),
    "a dataset that raises": (lambda: Dataset.of(Raising()), "data"),
    "labels that are objects": (lambda: Dataset.of((X, [{}] * 6)), "data.y"),
    "nested labels": (lambda: Dataset.of((X, [[1], [2, 3], 1, 1, 1, 1])), "data.y"),
    "a bare tensor among pairs": (lambda: Dataset.from_clients([CLIENTS[0], X]), "data[1]"),
    "no client": (lambda: Dataset.from_clients([]), "data"),
    "no clients": (lambda: Dataset.from_clients(X), "data"),  # type: ignore[arg-type]
    "a client that is none": (
        lambda: Dataset.from_clients({"west": CLIENTS[0], "east": 5}),
        "data['east']",
    ),
    "a number for clients": (lambda: Dataset.from_clients(5), "data"),  # type: ignore[arg-type]
    "a class twice": (
        lambda: Dataset.from_arrays(X, Y, class_names=["a", "a", "b"]),
        "data.class_names",
    ),
    "names of another number": (
        lambda: Dataset.from_arrays(X, Y, class_names=["a", "b", "c"], classes=4),
        "data.class_names",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused_with_field_type_and_remedy(case: str) -> None:
    make, field = REFUSED[case]
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("data", [5, [], "here", {"y": Y}, (X, Y, Y), CLIENTS])
def test_a_federation_refuses_it_too(data: Any) -> None:
    with pytest.raises(SecureFLError) as caught:
        Federation(tiny_config(), data=data)
    assert isinstance(caught.value, DataError)


def test_a_table_is_brought_into_another_s_columns() -> None:
    wanted = ("age", "ward=a", "ward=b")
    x = np.array([[0.0, 1.0, 7.0], [1.0, 0.0, 9.0]])
    made = aligned(Dataset.from_arrays(x, columns=("more", "ward=b", "age")), wanted)
    assert made.columns == wanted
    assert made.x.tolist() == [[7.0, 0.0, 1.0], [9.0, 0.0, 0.0]]
    for columns, field in (
        (("more", "ward=b", "age=old"), "features"),
        (("more", "ward=c", "age"), "ward"),
        (("more", "less", "age"), "features"),
    ):
        with pytest.raises(DataError) as caught:
            aligned(Dataset.from_arrays(x, columns=columns), wanted)
        assert caught.value.field.endswith(field)
