"""A configuration to begin with, from what was found in a file, with what people want next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w

from secure_fl.config import DataConfig, FederationConfig, SourceConfig
from secure_fl.config.security import FEWEST
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources import load_source
from secure_fl.data.sources.files import kind_of
from secure_fl.data.sources.tabular import column_names
from secure_fl.errors import DataError
from secure_fl.quantities import counted

_MOST_POOLS, _ROUNDS, _SIDE = 3, 20, 32
_STEPS, _FEW = 40, 500
_SHOWN = 40
_UNTRAINED = (
    "# private runs: leave rounds out, and two sums of view moments make the encoder, which are",
    '# worth more than private training; mode = "none" leaves the whole budget to the pools',
)
_PRIVATE = (
    "# To hide each example from everybody else, take the # away here and under [data].",
    "# [privacy]",
    '# unit = "example"',
    "# epsilon = 8.0",
)


def guessed(path: Path, label: str | None, client: str | None) -> tuple[str, Dataset]:
    """A small configuration for a file or folder, and its examples as they are read by it; `label`
    and `client` are the columns or arrays that hold them, where their names do not say it.

    Raises:
        DataError: the path is of no kind that is read, or what its reader refuses.
    """
    name, roles = kind_of(path, "--data"), {"label": label, "client": client}
    source: dict[str, Any] = {"name": name, "path": str(path)}
    source |= {role: column for role, column in roles.items() if column is not None}
    data, size, left_out = _read(source, path)
    read = SourceConfig(**source)
    dealt = FederationConfig().partition.clients
    clients = dealt if data.client is None else len(data.client.unique())
    lines = [f"# Made from {path.name}: {data.reading}.", *(f"# {note}" for note in data.notes)]
    lines += ["", f"name = {json.dumps(path.stem[:80] or 'mine')}"]
    lines += ["", "[data]", *_declared(data, size), "", "[[data.sources]]"]
    lines += [f"# left out: {column}, {reason}" for column, reason in left_out.items()]
    lines += [tomli_w.dumps(source).rstrip(), *_columns(data, read)]
    lines += ["", "[partition]", *_partition(data, clients)]
    for table, settings in _training(data, clients).items():
        lines += ["", f"[{table}]", tomli_w.dumps(settings).rstrip()]
        lines += _UNTRAINED if table == "pretrain" else ()
    return "\n".join([*lines, "", *_PRIVATE, ""]), data


def _training(data: Dataset, clients: int) -> dict[str, dict[str, Any]]:
    """Tables of the training that suits data of this kind, so many examples and clients."""
    tables: dict[str, dict[str, Any]] = {
        "pretrain": {"rounds": _ROUNDS},
        "pools": {"rounds": _ROUNDS // 2, **_enough_steps(len(data) // clients)},
    }
    if data.kind == "image" and data.shape[0] == 3:
        tables["model"] = {"encoder": "convnet"}  # resnet18, the default for colour, is for a GPU
    tables["pools"]["count"] = max(1, min(_MOST_POOLS, clients // FEWEST))
    if not data.labelled:
        tables["pools"]["task"] = "self_supervised"
    return tables


def _read(source: dict[str, Any], path: Path) -> tuple[Dataset, int | None, dict[str, str]]:
    """The examples; pixels a side where pictures differ in size; columns that cannot be learnt
    from, with the reason: `source` leaves them out.
    """
    size, left_out = None, dict[str, str]()
    while True:
        read = SourceConfig(**source)
        try:
            data, _ = load_source(read, DataConfig(sources=(read,), image_size=size), 0)
            return data, size, left_out
        except DataError as error:
            column = error.field.removeprefix(f"{path.name}.")
            if error.field == "data.image_size" and size is None:
                size = _SIDE
            elif (
                source["name"] in ("csv", "parquet")
                and path.is_file()
                and column in (free := column_names(read)[0])
                and column not in left_out
            ):
                left_out[column] = error.problem
                source["features"] = [each for each in free if each not in left_out]
            else:
                raise


def _enough_steps(examples: int) -> dict[str, int]:
    """Passes and batches that let a client of so many examples learn something in a round."""
    batch = 32 if examples >= _FEW else 16
    return {
        "batch_size": batch,
        "local_epochs": min(10, max(2, -(-_STEPS * batch // max(1, examples)))),
    }


def unsaid(data: Dataset) -> list[str]:
    """Which of label and client nothing in the data says."""
    missing = {"label": not data.labelled, "client": data.client is None}
    return [role for role, unsaid in missing.items() if unsaid]


def _columns(data: Dataset, source: SourceConfig) -> list[str]:
    """What to say where no column was taken for labels or clients."""
    asked = unsaid(data)
    if source.name in ("images", "npy") or not asked:
        return _categories(data)
    names = list(dict.fromkeys(column.partition("=")[0] for column in data.columns))
    lines = _categories(data)
    there = f" There are: {', '.join(names[:_SHOWN])}." if names else ""
    lines.append(f"# Nothing says which is the {' and the '.join(asked)}: name it here.{there}")
    return lines + [f'# {role} = "..."' for role in asked]


def _categories(data: Dataset) -> list[str]:
    """The values of text columns, for private runs to declare."""
    found: dict[str, list[str]] = {}
    for column in data.columns:
        name, equals, value = column.partition("=")
        if equals and not data.columns_declared:
            found.setdefault(name, []).append(value)
    pairs = ", ".join(
        f"{json.dumps(name)} = {json.dumps(values)}" for name, values in found.items()
    )
    said = f"# categories = {{ {pairs} }}  # private runs: everybody may then know these values"
    return [said] if pairs else []


def _partition(data: Dataset, clients: int) -> list[str]:
    if data.client is not None:
        return [f'kind = "natural"  # the {counted(clients, "client")} that the data name']
    dealt = (
        'kind = "iid"  # nobody says who holds what: examples are dealt out evenly, for a '
        "trial; leave both out when a client column is named"
    )
    return [dealt, f"clients = {clients}"]


def _declared(data: Dataset, size: int | None) -> list[str]:
    """Settings of [data]; what a private run needs is commented out, for the user to declare."""
    lines = [] if size is None else [f"image_size = {size}  # the pictures differ in size"]
    if data.classes:
        names = list(data.class_names or map(str, range(data.classes)))
        lines.append(
            f"# class_names = {json.dumps(names)}  # private runs: everybody "
            "may then know these names"
        )
    if data.kind == "vector":
        count = data.shape[0]
        lines.append(
            "# private runs: public numbers, one a column, from a handbook or an open set, not "
            "computed from the clients' examples"
        )
        lines += [f"# columns in order: {', '.join(data.columns)}"] if data.columns else []
        lines += [
            f"# column_means = [...]  # {count} numbers; 0 for a column of a category",
            f"# column_deviations = [...]  # {count}; 1 there",
        ]
    return lines
