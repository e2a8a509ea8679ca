"""Arrays and what clients hold, given from Python, that are not what the run was told; no message
shows what they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_config
from wrong_turns.records import HELD, ROWS, SECRET, WHO, X, Y
from wrong_turns.turns import Turn, named

from secure_fl import Dataset, Federation


def made(*given: Any, **more: Any) -> Callable[[Any], Any]:
    return lambda _: Dataset.from_arrays(*given, **more)


def of(given: Any, **more: Any) -> Callable[[Any], Any]:
    return lambda _: Dataset.of(given, **more)


def clients(given: Any) -> Callable[[Any], Any]:
    return lambda _: Dataset.from_clients(given)


def run(data: Callable[[], Any], **tables: Any) -> Callable[[Any], Any]:
    model = {"encoder": "mlp", "features": 16}
    return lambda _: Federation(
        tiny_config(**{"partition": {"kind": "natural"}, "model": model, **tables}), data=data()
    )


EITHER = np.zeros((4, 3, 8, 3))
OTHER = np.where(X > 1, float(SECRET), X)


ARRAYS = [
    Turn(
        "one example alone",
        made([1, 2, 3]),
        "data.x",
        "1 axes",
        r"\[N, F\]",
        mended=made([[1, 2, 3]]),
    ),
    Turn("no example", made(X[:0]), "data.x", "2 axes", "N at least 1"),
    Turn("five axes", made(np.zeros((4, 9, 9, 9, 2))), "data.x", "5 axes", r"\[N, C, H, W\]"),
    Turn("text", made([["a", "b"]]), "data.x", "<U1", "float32"),
    Turn("complex numbers", made(X + 1j), "data.x", "complex", "float32"),
    Turn("lengths that differ", made([[1, 2], [3]]), "data.x", "list", "pad or crop"),
    Turn("NaN", made(np.where(X > 1, np.nan, OTHER), Y), "data.x", "not shown", "impute", HELD),
    Turn("infinity", made(np.where(X > 1, np.inf, X), Y), "data.x", "not shown", "impute", HELD),
    Turn(
        "axes that could be either",
        made(np.zeros((4, 3, 8, 3))),
        "data.x",
        "3, 8, 3",
        "layout =",
        mended=made(np.zeros((4, 3, 8, 3)), layout="channels_last"),
    ),
    Turn(
        "another library's layout",
        made(np.zeros((4, 8, 8, 3)), layout="NHWC"),
        "layout",
        "NHWC",
        "channels_last",
    ),
    Turn("a kind that is none", made(X, kind="table"), "kind", "table", "vector"),
    Turn(
        "fewer labels than examples",
        made(X, Y[:3]),
        "data.y",
        "another length",
        r"the shape \(N,\)",
        HELD,
    ),
    Turn(
        "fewer owners than examples",
        made(X, Y, client=WHO[:3]),
        "data.client",
        "another length",
        r"the shape \(N,\)",
        HELD,
    ),
    Turn("one-hot labels", made(X, np.eye(2)[Y]), "data.y", "2 axes", r"the shape \(N,\)", HELD),
    Turn(
        "fractions for labels",
        made(X, Y + 0.5),
        "data.y",
        "float64",
        "number the categories from 0",
        ("0.5", "1.5"),
    ),
    Turn(
        "labels below -1",
        made(X, Y - 5),
        "data.y",
        "not shown",
        "mark examples without a label with -1",
        ("-5", "-4"),
    ),
    Turn(
        "more labels than declared",
        made(X, Y + 40, classes=2),
        "data.y",
        "not shown",
        "declare every label",
        ("40", "41"),
    ),
    Turn(
        "a label that is not named",
        made(X, ["flu", "gout"] * (ROWS // 2), class_names=["flu", "cold"]),
        "data.y",
        "not shown",
        "class_names",
        ("gout",),
    ),
    Turn(
        "one name for names",
        made(X, Y, class_names="flu"),
        "data.class_names",
        "str",
        "in a list",
        mended=made(X, Y, class_names=["flu", "cold"]),
    ),
    Turn(
        "classes in words",
        made(X, Y, classes="2"),
        "classes",
        "str",
        "a whole number from 1",
        mended=made(X, Y, classes=2),
    ),
    Turn("classes below none", made(X, Y, classes=-2), "classes", "-2", "a whole number from 1"),
    Turn(
        "classes as a fraction", made(X, Y, classes=2.5), "classes", "2.5", "a whole number from 1"
    ),
    Turn(
        "another word for a split",
        made(X, Y, split=["holdout"] * ROWS),
        "data.split",
        "not shown",
        "train, validation",
        ("holdout",),
    ),
    Turn(
        "nobody for an owner",
        made(X, Y, client=[None] * ROWS),
        "data.client",
        "not shown",
        "fill them in",
        HELD,
    ),
    Turn(
        "too few names of columns",
        made(X, columns=["age"]),
        "data.columns",
        "1",
        "a name for each column",
        mended=made(X, columns=list("abcde")),
    ),
    Turn("a number for names of columns", made(X, columns=5), "data.columns", "int", "in a list"),
    Turn(
        "letters for names of columns", made(X, columns="abcde"), "data.columns", "str", "in a list"
    ),
]

GIVEN = [
    Turn("nothing", of(None), "data", "NoneType", "pass a Dataset"),
    Turn("the name of a file", of("my.csv"), "data", "str", "read the file first"),
    Turn("a path", of(Path("my.csv")), "data", "PosixPath", "secure-fl init my.toml --data FILE"),
    Turn(
        "a generator",
        lambda _: Dataset.of(row for row in X),
        "data",
        "generator",
        "arrays or tensors",
    ),
    Turn(
        "three of them",
        of((X, Y, WHO)),
        "data",
        "tuple",
        r"pass \(x, y\), or a mapping",
        mended=of({"x": X, "y": Y, "client": WHO}),
    ),
    Turn("a mapping without x", of({"data": X}), "data.x", "['data']", "a mapping with x and y"),
    Turn(
        "an argument that is none",
        of(X, labels=Y),
        "labels",
        "ndarray",
        r"one of .*\by\b",
        mended=of(X, y=Y),
    ),
    Turn("labels twice", of((X, Y), y=Y), "data.y", "ndarray", "once"),
    Turn("no clients", clients([]), "data", "empty", r"\[\(x, y\), \.\.\.\]"),
    Turn("an array of clients", clients(X), "data", "ndarray", r"\{name: \(x, y\), \.\.\.\}"),
    Turn(
        "clients of other shapes", clients([(X, Y), (X[:, :3], Y)]), "data[1]", "(3,)", "one shape"
    ),
    Turn(
        "one client's labels",
        clients({"north": (X, Y), "south": (X, Y[:3])}),
        "data['south'].y",
        "another length",
        r"the shape \(N,\)",
        (str(ROWS),),
    ),
    Turn(
        "one client's nothing",
        clients({"north": (X, Y), "south": None}),
        "data['south']",
        "NoneType",
        "pass a Dataset",
    ),
    Turn(
        "one client in all",
        lambda _: Federation({}, data=Dataset.from_clients({"north": (X, Y)})),
        "partition.clients",
        "1",
        'at least 3: more clients, or security.protection = "plain"',
        mended=run(
            lambda: Dataset.from_clients({"north": (X, Y)}),
            security={"protection": "plain"},
            pools={"count": 1},
        ),
    ),
    Turn(
        "a client with one example",
        run(
            lambda: Dataset.from_clients({"north": (X, Y), "south": (X, Y), "tiny": (X[:1], Y[:1])})
        ),
        "partition.min_examples",
        "2",
        "^drop the client, or give it more examples$",
        mended=run(lambda: Dataset.from_clients({"north": (X, Y), "south": (X, Y)})),
    ),
    Turn(
        "no labels",
        run(lambda: Dataset.from_arrays(X, client=WHO)),
        "pools.task",
        "no labels",
        'pools.task = "self_supervised"',
    ),
    Turn(
        "one class",
        run(lambda: Dataset.from_arrays(X, 0 * Y, client=WHO)),
        "pools.task",
        "1 class",
        "labels of two classes",
    ),
    Turn(
        "pictures up to 255",
        lambda _: Federation(
            tiny_config(),
            data=Dataset.from_arrays(
                255 * np.random.default_rng(0).random((60, 1, 8, 8)), np.arange(60) % 2
            ),
        ),
        "data.x",
        "not shown",
        r"\[0, 1\] or give them as unsigned bytes",
        ("255", "60"),
    ),
]


@pytest.mark.parametrize(**named(ARRAYS + GIVEN))
def test_arrays(turn: Turn) -> None:
    turn.taken(None)
