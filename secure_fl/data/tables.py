"""Columns of a table as examples: which is what, text as categories, missing values refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as default
from typing import Any

import numpy as np
import torch

from secure_fl.data.columns import Declared, nothing
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError

MOST_CATEGORIES = 64
"""Values of a text column that become columns; one with more is a name or a note, no category."""
_NUMBER = re.compile(r"\s*[-+]?\d+([.,]\d+)*\s*\D{0,12}$")
"""Text that begins as a number: a column mostly of it was not read as the numbers that it holds."""
_DEFAULTS = {
    "label": ("label", "y"),
    "client": ("client",),
    "split": ("split",),
    "group": ("group",),
}


@dataclass(frozen=True)
class Roles:
    """Which column is what; None stands for the usual name where there is one, and `features` for
    all other columns.

    `categories` says which values text columns have, in the order of the columns that they become;
    `numbers` are columns that cannot be text.
    """

    label: str | None = None
    client: str | None = None
    split: str | None = None
    group: str | None = None
    features: tuple[str, ...] | None = None
    numbers: tuple[str, ...] = ()
    categories: Mapping[str, Sequence[str]] = default(default_factory=dict)

    def found(self, columns: Sequence[str], name: str) -> dict[str, str | None]:
        """Role -> the column that has it.

        Raises:
            DataError: a column that was asked for is not there, or has two roles.
        """
        taken: dict[str, str | None] = {}
        for role, usual in _DEFAULTS.items():
            asked = getattr(self, role)
            if asked is not None and asked not in columns:
                raise _absent(asked, columns, f"{name}.{role}")
            free = [column for column in columns if column not in (self.features or ())]
            near = [each for word in usual for each in free if each.strip().lower() == word]
            if asked is None and len(near) > 1:
                problem = f"several columns could be the {role}"
                remedy = (
                    f"say which with data.sources.{role}, and the columns to learn from with "
                    "data.sources.features"
                )
                raise DataError(problem, field=f"{name}.{role}", value=near, remedy=remedy)
            taken[role] = asked if asked is not None else next(iter(near), None)
        named = [column for column in taken.values() if column is not None] + list(
            self.features or ()
        )
        if twice := next((column for column, count in Counter(named).items() if count > 1), None):
            remedy = "name each column once among label, client, split, group and features"
            raise DataError(
                "a column has two meanings", field=f"{name}.{twice}", value=twice, remedy=remedy
            )
        return taken


def roles_like(wanted: Sequence[str], there: Sequence[str], roles: Roles, name: str) -> Roles:
    """The roles that make the columns `wanted` of a table with other rows: `colour=red` stands for
    the value red of a text column.

    Raises:
        DataError: a column is not there.
    """
    features, categories = dict[str, None](), dict[str, list[str]]()
    for column in wanted:
        ends = [place for place, letter in enumerate(column) if letter == "="]
        parent = next((column[:end] for end in ends if column[:end] in there), None)
        if column in there:
            features[column] = None
        elif parent is None:
            raise _absent(column, there, f"{name}.features")
        else:
            categories.setdefault(parent, []).append(column[len(parent) + 1 :])
            features[parent] = None
    numbers = tuple(column for column in features if column not in categories)
    values = {each: tuple(found) for each, found in categories.items()}
    return replace(roles, features=tuple(features), numbers=numbers, categories=values)


def aligned(data: Dataset, wanted: Sequence[str]) -> Dataset:
    """A table that was read by itself, in the columns of another: what `colour=red` is there, and
    what is not there of a text column, is found.

    Raises:
        DataError: a column is missing, or a text column holds values that the other does not know.
    """
    if data.columns == tuple(wanted) or not data.columns:
        return data
    place = {column: number for number, column in enumerate(data.columns)}
    own, text = (
        {column.partition("=")[0] for column in columns if "=" in column}
        for columns in (data.columns, wanted)
    )
    for column in wanted:
        if column not in place and not ("=" in column and column.partition("=")[0] in own):
            raise _absent(column, data.columns, f"{data.name}.features")
    others = {
        column.partition("=")[0] for column in set(data.columns) - set(wanted) if "=" in column
    }
    unknown = sorted(text & others)
    if unknown:
        raise DataError.unshown(
            "holds values that are not known", f"{data.name}.{unknown[0]}", "drop such rows"
        )
    zeros = data.x.new_zeros(len(data))
    x = torch.stack(
        [data.x[:, place[column]] if column in place else zeros for column in wanted], 1
    )
    return replace(data, x=x, columns=tuple(wanted))


def from_columns(
    columns: Mapping[str, Any], roles: Roles, declared: Declared, name: str
) -> Dataset:
    """Vectors `[N, F]` from a table's columns, one a number; a text column becomes one column
    a category.

    Raises:
        DataError: naming the column: it is missing, has missing values, or is neither numbers
            nor categories.
    """
    taken = roles.found(list(columns), name)
    chosen = _chosen(columns, roles, taken, name)
    blocks, names, notes = list[np.ndarray](), list[str](), list[str]()
    for column in chosen:
        wanted, number = roles.categories.get(column), column in roles.numbers
        block, parts = _numbers(columns[column], column, name, wanted, number=number)
        blocks.append(block)
        names += parts
        if parts != [column]:
            notes.append(f"column {column} is text: one column for each of its {len(parts)} values")
    if len({len(block) for block in blocks}) > 1:
        remedy = "give every column one value a row"
        raise DataError(
            "columns differ in length", field=name, value=list(chosen)[:12], remedy=remedy
        )
    given = {role: None if column is None else columns[column] for role, column in taken.items()}
    data = _checked(np.concatenate(blocks, 1), given, declared, tuple(names), taken, name)
    said = [f"{column} as {role}" for role, column in taken.items() if column is not None]
    said += ["no column as label, so examples have none"] if taken["label"] is None else []
    return replace(
        data,
        columns_declared=len(notes) <= len(roles.categories),
        notes=(f"taken: {', '.join(said)}", *notes, *data.notes),
    )


def _chosen(
    columns: Mapping[str, Any], roles: Roles, taken: Mapping[str, str | None], name: str
) -> tuple[str, ...]:
    """The columns that examples are made of: those that are named, else all without a role."""
    chosen = roles.features
    if chosen is None:
        chosen = tuple(column for column in columns if column not in taken.values())
    for column in chosen:
        if column not in columns:
            raise _absent(column, list(columns), f"{name}.features")
    if not chosen:
        problem = "no column is left to learn from"
        remedy = "name the columns in data.sources.features"
        raise DataError(problem, field=f"{name}.features", value=list(columns)[:12], remedy=remedy)
    for column in roles.categories:
        if column not in chosen:
            raise _absent(column, chosen, f"{name}.categories")
    return chosen


def _checked(
    x: np.ndarray,
    given: Mapping[str, Any],
    declared: Declared,
    names: tuple[str, ...],
    taken: Mapping[str, str | None],
    name: str,
) -> Dataset:
    """The dataset; what is wrong with a column is said by its own name."""
    try:
        beside = {"y" if role == "label" else role: column for role, column in given.items()}
        return Dataset.from_arrays(x, **beside, **declared.given, columns=names, name=name)
    except DataError as error:
        role = error.field.removeprefix(f"{name}.")
        column = taken.get("label" if role == "y" else role)
        if column is None:
            raise
        field = f"{name}.{column}"
        raise DataError(
            error.problem, field=field, value=error.value, remedy=error.remedy
        ) from None


def _numbers(
    values: Any, column: str, name: str, categories: Sequence[str] | None, *, number: bool = False
) -> tuple[np.ndarray, list[str]]:
    """A column as float32 `[N, F]` and the names of its parts; declared categories make it text."""
    field = f"{name}.{column}"
    if np.ma.is_masked(values):
        raise _missing(field)
    array = np.asarray(values)
    if array.ndim != 1:
        shown, remedy = f"{array.ndim} axes", "leave it out of data.sources.features"
        raise DataError("not one value a row", field=field, value=shown, remedy=remedy)
    if array.dtype.kind == "O":
        array = _plain(array, field)
    if categories is not None and array.dtype.kind in "iub":
        array = array.astype(str)
    if array.dtype.kind in "fiub":
        return _as_float32(array, field)[:, None], [column]
    if array.dtype.kind not in "US":
        remedy = "turn it into numbers (dates: days), or leave it out of data.sources.features"
        raise DataError(
            "neither numbers nor categories", field=field, value=str(array.dtype), remedy=remedy
        )
    if bool((np.char.strip(array) == ("" if array.dtype.kind == "U" else b"")).any()):
        raise _missing(field)
    texts = array.astype(str)
    if categories is None:
        _check_categories(texts, field, number)
    return _one_hot(texts, column, field, categories)


def _as_float32(array: np.ndarray, field: str) -> np.ndarray:
    numbers: np.ndarray = array.astype(np.float32)
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        raise _missing(field)
    if not bool(np.isfinite(numbers).all()):
        problem, remedy = "infinite, or too large for float32", "scale it, or drop such rows"
        raise DataError.unshown(problem, field, remedy)
    return numbers


def _check_categories(texts: np.ndarray, field: str, number: bool) -> None:
    """Refuse text in a column of numbers: one that must be, or one of which half looks like it."""
    kinds = np.unique(texts).tolist()
    if number or 2 * sum(_NUMBER.match(text) is not None for text in kinds) >= len(kinds):
        remedy = (
            "write numbers alone, with a decimal point and without units; text that only looks "
            "like numbers is named in data.sources.categories"
        )
        raise DataError.unshown("holds text where numbers are expected", field, remedy)


def _one_hot(
    array: np.ndarray, column: str, field: str, categories: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Text as one column a category, declared or found, in sorted order."""
    found, codes = np.unique(array, return_inverse=True)
    names = found.tolist() if categories is None else list(categories)
    if len(found) > MOST_CATEGORIES and categories is None:
        remedy = "leave it out with data.sources.features, or bring it to fewer categories"
        raise DataError.unshown(
            f"text of more than {MOST_CATEGORIES} kinds is no category", field, remedy
        )
    if not set(found.tolist()) <= set(names):
        remedy = "name every value that there is in data.sources.categories"
        raise DataError.unshown("a value is not among the declared ones", field, remedy)
    places = np.asarray([names.index(value) for value in found.tolist()])
    return np.eye(len(names), dtype=np.float32)[places[codes.reshape(-1)]], [
        f"{column}={value}" for value in names
    ]


def _plain(array: np.ndarray, field: str) -> np.ndarray:
    """What frames keep as objects, as numbers or text."""
    items = array.tolist()
    if any(map(nothing, items)):
        raise _missing(field)
    kinds = {type(item) for item in items}
    if kinds <= {str}:
        return np.asarray(items)
    if all(kind.__name__ in ("int", "float", "bool", "Decimal") for kind in kinds):
        return np.asarray([float(item) for item in items])
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    remedy = "turn it into numbers or text, or leave it out with data.sources.features"
    raise DataError(
        "neither numbers nor categories", field=field, value=f"objects: {names}", remedy=remedy
    )


def _missing(field: str) -> DataError:
    remedy = "drop such rows, fill them in, or leave the column out with data.sources.features"
    return DataError.unshown("missing values", field, remedy)


def _absent(column: str, columns: Sequence[str], field: str) -> DataError:
    shown = ", ".join(list(columns)[:12]) + (", …" if len(columns) > 12 else "")
    return DataError("no such column", field=field, value=column, remedy=f"one of: {shown}")
