"""Settings that are misspelt, in the wrong table, of the wrong kind, out of range, or at odds with
each other and with the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import make_images, tiny_config
from wrong_turns.turns import Turn, named

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.config import PoolsConfig

ROWS = 36
IMAGES = make_images(120)
COLUMNS = np.random.default_rng(0).normal(size=(ROWS, 5))
LABELS = np.arange(ROWS) % 2
WHO = [f"site {i % 4}" for i in range(ROWS)]


def table() -> Dataset:
    return Dataset.from_arrays(COLUMNS, LABELS, client=WHO)


def config(tables: dict[str, Any]) -> Any:
    return lambda _: Federation(tables)


def over(given: Any, /, **tables: Any) -> Any:
    model = {"encoder": "mlp", "features": 16} if given is not IMAGES else {}
    return lambda _: Federation(
        tiny_config(**{"model": model, **tables}), data=given() if callable(given) else given
    )


NATURAL = {"kind": "natural"}

NAMES = [
    Turn("a table misspelt", config({"pool": {"count": 2}}), "pool", "count", "did you mean pools"),
    Turn(
        "a setting misspelt",
        config({"pools": {"cuont": 2}}),
        "pools.cuont",
        "2",
        r"did you mean pools\.count",
    ),
    Turn(
        "a setting of another table",
        config({"pools": {"epsilon": 2}}),
        "pools.epsilon",
        "2",
        r"privacy\.epsilon",
    ),
    Turn("a setting without its table", config({"count": 2}), "count", "2", r"pools\.count"),
    Turn(
        "another library's name",
        config({"pretrain": {"learning_rate": 2}}),
        "pretrain.learning_rate",
        "2",
        r"known keys: .*\blr\b",
    ),
    Turn(
        "half a name",
        config({"pretrain": {"epochs": 2}}),
        "pretrain.epochs",
        "2",
        r"pretrain\.local_epochs",
    ),
]

KINDS = [
    Turn(
        "text for a number",
        config({"pools": {"count": "three"}}),
        "pools.count",
        "three",
        "whole number from 1 to 10000 ",
    ),
    Turn(
        "a fraction for a count",
        config({"pools": {"count": 2.5}}),
        "pools.count",
        "2.5",
        "a whole number",
    ),
    Turn("no rounds", config({"pools": {"rounds": 0}}), "pools.rounds", "0", "from 1 to 1000000 "),
    Turn(
        "a negative rate",
        config({"pretrain": {"lr": -1}}),
        "pretrain.lr",
        "-1",
        "a finite number above 0 ",
    ),
    Turn(
        "not a number",
        config({"pretrain": {"lr": float("nan")}}),
        "pretrain.lr",
        "nan",
        "a finite number above 0 ",
    ),
    Turn("a number for a table", config({"pools": 3}), "pools", "3", "a table of settings"),
    Turn(
        "true for a word",
        config({"privacy": {"unit": True}}),
        "privacy.unit",
        "True",
        'one of "none", "example", "client"',
    ),
    Turn(
        "a word that is none",
        config({"privacy": {"unit": "patient"}}),
        "privacy.unit",
        "patient",
        "whose presence is hidden",
    ),
    Turn(
        "no budget",
        config({"privacy": {"unit": "example", "epsilon": 0}}),
        "privacy.epsilon",
        "0",
        "above 0",
    ),
    Turn(
        "certain failure",
        config({"privacy": {"unit": "example", "delta": 1}}),
        "privacy.delta",
        "1",
        r"above 0 below 0\.1",
    ),
    Turn(
        "one source, not in a list",
        config({"data": {"sources": {"name": "csv"}}}),
        "data.sources",
        "csv",
        "set it to a list",
    ),
    Turn(
        "a format that is none",
        config({"data": {"sources": [{"name": "excel"}]}}),
        "data.sources.name",
        "excel",
        '"csv", "parquet"',
    ),
    Turn(
        "a null byte",
        config({"data": {"sources": [{"name": "csv", "path": "a\0"}]}}),
        "data.sources.path",
        "a\\x00",
        "set it to text",
    ),
    Turn(
        "a home that is not there",
        config({"pretrain": {"load_from": "~nobody-x/run"}}),
        "pretrain.load_from",
        "~nobody-x",
        "set HOME",
    ),
    Turn(
        "a list for a configuration",
        lambda _: Federation([1]),
        "config",
        "list",
        "a dict of its tables",
    ),  # type: ignore[arg-type]
    Turn(
        "data for a configuration",
        lambda _: Federation(COLUMNS),
        "config",
        "ndarray",
        "a FederationConfig",
    ),  # type: ignore[arg-type]
]

TOGETHER = [
    Turn(
        "more pools than clients can fill",
        config({"pools": {"count": 5}}),
        "partition.clients",
        "12",
        "at least 15: more clients, or pools.count at most 4",
        mended=lambda _: (
            FederationConfig(pools={"count": 4}),
            FederationConfig(pools={"count": 5}, partition={"clients": 15}),
        ),
    ),
    Turn(
        "one client",
        config({"partition": {"clients": 1}}),
        "partition.clients",
        "1",
        'at least 3: .*protection = "plain"',
        mended=lambda _: FederationConfig(
            partition={"clients": 3, "groups": 1}, pools={"count": 1}
        ),
    ),
    Turn(
        "a warm-up as long as the run",
        config({"pools": {"rounds": 2, "warmup_rounds": 2}}),
        "pools.warmup_rounds",
        "2",
        "below pools.rounds = 2, leave it out",
        mended=lambda _: (
            FederationConfig(pools={"rounds": 2, "warmup_rounds": 1}),
            FederationConfig(pools={"rounds": 2}),
        ),
    ),
    Turn(
        "centralized, on nothing",
        config({"pretrain": {"mode": "centralized"}}),
        "pretrain.source",
        "None",
        r"\[pretrain\.source\]",
    ),
    Turn(
        "load, from nowhere",
        config({"pretrain": {"mode": "load"}}),
        "pretrain.load_from",
        "None",
        "a finished run folder",
    ),
    Turn(
        "everything switched off",
        over(IMAGES, pretrain={"mode": "none"}, pools={"enabled": False}),
        "pools.enabled",
        "False",
        "enable the pools",
    ),
    Turn(
        "a threshold above the clients",
        config({"security": {"threshold": 99}}),
        "security.threshold",
        "99",
        "between 7 and 12",
    ),
    Turn(
        "a device that is not there",
        over(IMAGES, runtime={"device": "cuda"}),
        "runtime.device",
        "cuda",
        '"auto" or "cpu"',
    ),
    Turn(
        "tables rotated",
        over(lambda: Dataset.from_arrays(COLUMNS, LABELS)),
        "partition.kind",
        "rotation",
        r"another partition\.kind",
    ),
    Turn(
        "an encoder of pictures",
        over(table, partition=NATURAL, model={"encoder": "convnet"}),
        "model.encoder",
        "convnet",
        'encoder = "auto"',
    ),
    Turn(
        "natural without clients",
        over(lambda: Dataset.from_arrays(COLUMNS), partition=NATURAL),
        "partition.kind",
        "natural",
        r"sources\.client",
    ),
    Turn(
        "real clients dissolved",
        over(table, partition={"kind": "iid"}),
        "partition.kind",
        "iid",
        r"partition\.ignore_clients = true",
    ),
    Turn(
        "means without deviations",
        over(table, data={"column_means": [0] * 5}),
        "data.column_deviations",
        "5 means",
        "as many numbers",
    ),
    Turn(
        "too few means",
        over(
            table, partition=NATURAL, data={"column_means": [0] * 4, "column_deviations": [1] * 4}
        ),
        "data.column_means",
        "4 means",
        "one number a column",
        mended=over(
            table, partition=NATURAL, data={"column_means": [0] * 5, "column_deviations": [1] * 5}
        ),
    ),
    Turn(
        "labels that nobody declared",
        over(
            table,
            partition=NATURAL,
            privacy={"unit": "example"},
            data={"scale": "none"},
            pools={"start": "pretrained"},
        ),
        "data.classes",
        "None",
        r"set data\.classes or data\.class_names",
        ("site", str(ROWS)),
        over(
            table,
            partition=NATURAL,
            privacy={"unit": "example"},
            data={"scale": "none", "classes": 2},
            pools={"start": "pretrained"},
        ),
    ),
    Turn(
        "columns that are not scaled in public",
        over(table, partition=NATURAL, privacy={"unit": "example"}, pools={"start": "pretrained"}),
        "data.column_means",
        "None",
        'data.scale = "none"',
    ),
]


@pytest.mark.parametrize(**named(NAMES + KINDS))
def test_names_and_kinds(turn: Turn) -> None:
    turn.taken(None)


@pytest.mark.parametrize(**named(TOGETHER))
def test_settings_at_odds(turn: Turn) -> None:
    turn.taken(None)


@pytest.mark.parametrize("rounds", [1, 2, 3, 10])
def test_a_short_run_has_a_short_warm_up(rounds: int) -> None:
    for pools in ({"rounds": rounds}, PoolsConfig(rounds=rounds)):
        assert FederationConfig(pools=pools).pools.warmup_rounds == min(2, rounds - 1)
