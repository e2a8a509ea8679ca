"""Columns beside the examples: labels, clients, splits and groups, as people write them, and
their numbers.

Names are numbered once, in sorted order, and kept beside the numbers. Numbers 0, 1, 2, … without
gaps are their own names, for which `()` stands. Errors never show what a column holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secure_fl.errors import DataError

UNLABELLED = -1
"""The label of an example without one."""
TRAIN, VALIDATION, TEST = 0, 1, 2
"""What `split` numbers mean."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "0"), TRAIN),
    **dict.fromkeys(("validation", "val", "valid", "dev", "1"), VALIDATION),
    **dict.fromkeys(("test", "testing", "2"), TEST),
}
"""How splits are called."""
_MOST_CLASSES = 1 << 20
_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>", "nat"}
"""Text that frames and people write where there is nothing."""


@dataclass(frozen=True)
class Declared:
    """What somebody said about the classes, rather than what was read off the labels.

    Attributes:
        classes: how many there are; None where nobody said it.
        names: their names in number order; () where nobody said them.
    """

    classes: int | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, classes: int | None, names: Sequence[str] | None, field: str = "class_names"
    ) -> Declared:
        """Both together, checked to agree.

        Raises:
            DataError: a name twice, or another number than there are names.
        """
        counts = hasattr(classes, "__index__") and not isinstance(classes, bool)
        if classes is not None and not (counts and 1 <= classes <= _MOST_CLASSES):
            shown = classes if isinstance(classes, int | float) else type(classes).__name__
            remedy = f"give a whole number from 1 to {_MOST_CLASSES}, or leave it out"
            raise DataError("is no number of classes", field="classes", value=shown, remedy=remedy)
        told = names_of(
            names, field, "give the classes' names in a list, in the order of their numbers"
        )
        if len(set(told)) < len(told):
            raise DataError(
                "names a class twice", field=field, value=told, remedy="name each class once"
            )
        if told and classes not in (None, len(told)):
            problem = f"{len(told)} names for another number of classes"
            remedy = "leave the number out, or name every class"
            raise DataError(problem, field=field, value=classes, remedy=remedy)
        return cls(len(told) if told else classes, told)

    @property
    def given(self) -> dict[str, Any]:
        """As arguments of `Dataset.from_arrays` and of what takes the same."""
        return {"classes": self.classes, "class_names": self.names or None}


UNDECLARED = Declared()


def names_of(names: Any, field: str, remedy: str) -> tuple[str, ...]:
    """Names that a caller gives, as text; () for None.

    Raises:
        DataError: they are no sequence of names, such as one text, whose letters are none.
    """
    if names is None:
        return ()
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise DataError.of_kind("is no list of names", field, names, remedy)
    return tuple(str(name) for name in names)


@dataclass(frozen=True)
class Labels:
    """Labels by number: `y` int64 `[N]`, `names` (() for numbers), whether these are declared."""

    y: Tensor = field(repr=False)
    classes: int
    names: tuple[str, ...]
    declared: bool


def labels_of(values: Any, length: int, declared: Declared, field: str) -> Labels:
    """Number labels: text or whole numbers, -1 for an example without one.

    Raises:
        DataError: values are missing or no labels, or a label is not among the declared ones.
    """
    found = column(values, length, field)
    known = _has_label(found, declared, field)
    codes, names = numbered(found[known])
    y = np.full(length, UNLABELLED, np.int64)
    y[known] = codes
    if not declared.names and any(_whole(name) and int(name) < 0 for name in names):
        remedy = (
            "number the classes from 0, mark examples without a label with -1, or name them all in "
            "data.class_names"
        )
        raise DataError.unshown("labels outside -1, 0, 1, …", field, remedy)
    classes = len(names) or int(y.max(initial=UNLABELLED)) + 1
    if classes > _MOST_CLASSES:
        problem, remedy = f"more than {_MOST_CLASSES} classes", "name a column of categories"
        raise DataError.unshown(problem, field, remedy)
    return declared_labels(Labels(torch.from_numpy(y), classes, names, False), declared, field)


def _has_label(found: np.ndarray, declared: Declared, field: str) -> np.ndarray:
    """Which examples have a label, bool `[N]`: all where -1 is declared to be one."""
    if str(UNLABELLED) in declared.names:
        return np.ones(len(found), bool)
    if found.dtype.kind == "i" and not declared.names and set(np.unique(found).tolist()) == {-1, 1}:
        problem = "either two classes, or one beside examples without a label"
        remedy = 'number the classes 0 and 1, or name them: data.class_names = ["-1", "1"]'
        raise DataError(problem, field=field, value="-1 and 1 only", remedy=remedy)
    there: np.ndarray = found != (UNLABELLED if found.dtype.kind in "iu" else str(UNLABELLED))
    return there


def declared_labels(labels: Labels, declared: Declared, field: str) -> Labels:
    """The same labels in the declared numbering.

    Names are found among the declared ones. Numbers are too, where these are numbers; otherwise the
    number i means the i-th name.

    Raises:
        DataError: a label is not among the declared ones.
    """
    classes = declared.classes
    if classes is None:
        return labels
    own = labels.names or tuple(map(str, range(labels.classes)))
    numbers, names = _declared_numbers(own, declared, field)
    there = set(labels.y.unique().tolist()) - {UNLABELLED}
    if any(not 0 <= numbers[code] < classes for code in there):
        remedy = (
            "declare every label there is (data.classes, data.class_names), or number the classes "
            "from 0; -1 marks an example without a label"
        )
        problem = f"labels outside 0..{classes - 1}"
        if declared.names:
            problem = f"labels outside the {len(declared.names)} of data.class_names"
        raise DataError.unshown(problem, field, remedy)
    inside = [number if 0 <= number < classes else UNLABELLED for number in numbers]
    table = torch.tensor([*inside, UNLABELLED])
    # Names that were read off private labels are private, also where somebody said how many
    # there are.
    told = bool(declared.names) or not names or labels.declared
    return Labels(table[labels.y], classes, names, told)


def _declared_numbers(
    own: Sequence[str], declared: Declared, field: str
) -> tuple[list[int], tuple[str, ...]]:
    """The declared number of each class found, out of range where it is not; and classes' names."""
    counted = all(_whole(name) for name in own)
    if declared.names:
        place = {name: number for number, name in enumerate(declared.names)}
        by_number = counted and not all(_whole(name) for name in declared.names)
        numbers = [int(name) if by_number else place.get(name, -1) for name in own]
        as_counted = declared.names == tuple(map(str, range(len(declared.names))))
        return numbers, () if as_counted else declared.names
    if counted:
        return [int(name) for name in own], ()
    if len(own) != declared.classes:
        problem = f"labels by name, and not of {declared.classes} kinds"
        remedy = "name every class in data.class_names (from Python: class_names=)"
        raise DataError.unshown(problem, field, remedy)
    return list(range(len(own))), tuple(own)


def owners_of(values: Any, length: int, field: str) -> tuple[Tensor, tuple[str, ...]]:
    """Clients by number, int64 `[N]`, and their names."""
    codes, names = numbered(column(values, length, field))
    return torch.from_numpy(codes), names


def splits_of(values: Any, length: int, field: str) -> Tensor:
    """0 train, 1 validation, 2 test, int64 `[N]`.

    Raises:
        DataError: something else is there, or no example is for training.
    """
    found, codes = np.unique(column(values, length, field).astype(str), return_inverse=True)
    numbers = [SPLIT_NAMES.get(name.strip().lower()) for name in found.tolist()]
    if any(number is None for number in numbers):
        remedy = "write train, validation (val, valid, dev) or test, or 0, 1 and 2"
        raise DataError.unshown("neither training, validation nor test", field, remedy)
    split = torch.tensor(numbers, dtype=torch.int64)[torch.from_numpy(codes.reshape(-1))]
    if not bool((split == TRAIN).any()):
        raise DataError.unshown(
            "no example is for training", field, "mark some with train, or leave the column out"
        )
    return split


def groups_of(values: Any, length: int, field: str) -> Tensor:
    """Equal numbers for equal values, int64 `[N]`."""
    return torch.from_numpy(numbered(column(values, length, field))[0])


def numbered(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers 0, 1, … in sorted order, int64 `[N]`, and the values as text; () where these are the
    same numbers.

    Text of whole numbers sorts as they do.
    """
    found, codes = np.unique(values, return_inverse=True)
    names = [str(value) for value in found.tolist()]
    if found.dtype.kind == "U" and all(_whole(name) for name in names):
        order = sorted(range(len(names)), key=lambda i: int(names[i]))
        names = [names[i] for i in order]
        codes = np.argsort(np.asarray(order, dtype=np.int64), kind="stable")[codes]
    codes = codes.reshape(-1).astype(np.int64)
    return codes, () if names == list(map(str, range(len(names)))) else tuple(names)


def column(values: Any, length: int, field: str) -> np.ndarray:
    """One whole number or text an example, as numpy holds them.

    Raises:
        DataError: another length, missing values, or other values.
    """
    if np.ma.is_masked(values):
        raise _missing(field)
    array = (
        values.detach().cpu().numpy() if isinstance(values, Tensor) else _as_array(values, field)
    )
    if array.shape != (length,):
        found = "another length than x" if array.ndim == 1 else f"{array.ndim} axes"
        problem, remedy = "not one value for each example", "give it the shape (N,), N as in x"
        raise DataError(problem, field=field, value=found, remedy=remedy)
    kind = array.dtype.kind
    if kind == "f" and not bool(np.isfinite(array).all()):
        raise _missing(field)
    if kind in "iu":
        return array
    if kind == "b" or (kind == "f" and np.array_equal(array, np.round(array))):
        return array.astype(np.int64)
    if kind == "O":
        return _of_objects(array, field)
    if kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind != "U":
        remedy = "number the categories from 0, or give their names"
        raise DataError("not integers or text", field=field, value=str(array.dtype), remedy=remedy)
    if not _MISSING.isdisjoint(np.char.lower(np.char.strip(np.unique(array))).tolist()):
        raise _missing(field)
    return array


def _as_array(values: Any, field: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except Exception:  # what a lazy sequence raises may quote what it holds
        remedy = "give one whole number or name for each example"
        raise DataError.of_kind("not one value for each example", field, values, remedy) from None


def _of_objects(array: np.ndarray, field: str) -> np.ndarray:
    """What frames keep text in."""
    items = array.tolist()
    if any(map(nothing, items)):
        raise _missing(field)
    kinds = {type(item) for item in items}
    if kinds <= {str} or kinds <= {int, bool}:
        return column(np.asarray(items), len(items), field)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    remedy = "number the categories from 0, or give their names"
    raise DataError("not integers or text", field=field, value=f"objects: {names}", remedy=remedy)


def nothing(item: object) -> bool:
    """Whether an item of a frame stands for a missing value."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return getattr(item, "ndim", 0) == 0 and bool(item != item)


def _missing(field: str) -> DataError:
    return DataError.unshown(
        "missing values", field, "drop such rows, or fill them in (a label: -1 where there is none)"
    )


def _whole(text: str) -> bool:
    return re.fullmatch("0|-?[1-9][0-9]*", text) is not None
