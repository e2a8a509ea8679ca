"""One door for data from Python: whatever holds examples becomes a `Dataset`, and everything else
is refused with what it was.

Frames and datasets of other packages are known by what they can do, so that none of them needs to
be installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secure_fl.data.columns import Declared, owners_of
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.tables import Roles, from_columns, roles_like
from secure_fl.errors import DataError, SecureFLError

_ARRAYS = ("x", "y", "client", "split", "group")
_BESIDE = (*_ARRAYS[1:], "classes", "class_names", "layout", "kind", "columns")
_IMAGES = ("image", "img", "x", "pixel_values", "features", "input")
_LABELS = ("label", "y", "labels", "fine_label")
_REMEDY = (
    "pass a Dataset, arrays or tensors, (x, y), a mapping with x and y, a frame, a torch or "
    "Hugging Face dataset; for clients: Dataset.from_clients({name: (x, y), ...})"
)

_READ_FIRST = (
    "read the file first (numpy.load, pandas.read_csv, ...), or leave data out and name it in the "
    "configuration: "
    '{"data": {"sources": [{"name": "csv", "path": ...}]}}; `secure-fl init '
    "my.toml --data FILE` writes one"
)


def dataset_of(given: Any, *, name: str = "data", **columns: Any) -> Dataset:
    """Anything that holds examples as a `Dataset`; see `Dataset.of`.

    Raises:
        DataError: it is nothing of that kind, or what `Dataset.from_arrays` refuses.
    """
    asked = {key: value for key, value in columns.items() if value is not None}
    if isinstance(given, Dataset):
        return _again(given, asked)
    if isinstance(given, str | bytes) or given is None or isinstance(given, int | float | complex):
        raise _refused(given, name)
    try:
        read = next((read for known, read in _DOORS if known(given)), None)
        if read is not None:
            made: Dataset = read(given, name, asked)
            return made
    except (SecureFLError, MemoryError):
        raise
    except Exception:  # what another package raises may quote an example
        remedy = "look at its items one by one: one raises an error, or cannot be read"
        raise DataError.of_kind("cannot be read", name, given, remedy) from None
    raise _refused(given, name)


def _again(data: Dataset, asked: Mapping[str, Any]) -> Dataset:
    """A dataset as it is, in the numbering that is declared now."""
    if unknown := sorted(set(asked) - {"classes", "class_names"}):
        problem = "a Dataset has its columns already"
        raise DataError.of_kind(problem, unknown[0], asked[unknown[0]], "give them when it is made")
    return data.with_classes(asked.get("classes"), asked.get("class_names")) if asked else data


def _pair(given: Any, name: str, columns: dict[str, Any]) -> Dataset:
    if len(given) != 2:
        remedy = "pass (x, y), or a mapping with x, y, client, split and group"
        raise DataError(f"a tuple of {len(given)}", field=name, value="tuple", remedy=remedy)
    return _arrays({"x": given[0], "y": given[1]}, name, columns)


def _mapping(given: Mapping[Any, Any], name: str, columns: dict[str, Any]) -> Dataset:
    """Arrays by name, or one table for each split."""
    keys = [str(key) for key in given]
    if given and all(_is_hugging_face(value) for value in given.values()):
        parts = [_hugging_face(value, f"{name}[{key!r}]", columns) for key, value in given.items()]
        whole = join(parts, name)
        split = np.repeat(np.asarray(keys), [len(part) for part in parts])
        return replace(
            whole,
            split=Dataset.from_arrays(np.zeros((len(whole), 1)), split=split, name=name).split,
        )
    if "x" not in keys:
        raise DataError("a mapping without x", field=f"{name}.x", value=keys[:8], remedy=_REMEDY)
    if unknown := [key for key in keys if key not in _ARRAYS]:
        field, remedy = f"{name}.{unknown[0]}", f"one of {', '.join(_ARRAYS)}"
        raise DataError("no such array", field=field, value=unknown[0], remedy=remedy)
    return _arrays({str(key): value for key, value in given.items()}, name, columns)


def _array(given: Any, name: str, columns: dict[str, Any]) -> Dataset:
    return _arrays({"x": given}, name, columns)


def _list(given: list[Any], name: str, columns: dict[str, Any]) -> Dataset:
    if not given or not isinstance(given[0], list | int | float | np.ndarray | Tensor):
        raise _refused(given, name)
    if isinstance(given[0], Tensor):
        if len({tuple(row.shape) if isinstance(row, Tensor) else None for row in given}) > 1:
            problem = "examples differ in shape"
            remedy = "pad or crop them to one shape"
            raise DataError(problem, field=f"{name}.x", value="list", remedy=remedy)
        return _array(torch.stack(given), name, columns)
    return _array(given, name, columns)


def _arrays(arrays: Mapping[str, Any], name: str, columns: Mapping[str, Any]) -> Dataset:
    """`from_arrays` with what was given beside."""
    beside = {key: value for key, value in arrays.items() if key != "x"}
    if twice := sorted(set(beside) & set(columns)):
        field = f"{name}.{twice[0]}"
        raise DataError.of_kind("given twice", field, columns[twice[0]], "give it once")
    _check_known(columns, _BESIDE)
    return Dataset.from_arrays(arrays["x"], **beside, **columns, name=name)


def _frame(given: Any, name: str, columns: dict[str, Any]) -> Dataset:
    """A pandas or polars frame, or an Arrow table."""
    return from_columns(_table(given, name), *_roles(columns), name)


def frame_like(
    given: Any, wanted: Sequence[str], label: str | None, declared: Declared, name: str
) -> Dataset:
    """The columns `wanted` of a frame, as another frame was read, with labels where there are some:
    in the column `label`, if there is one.

    Raises:
        DataError: a column is missing, or what `from_columns` refuses.
    """
    table = _table(given, name)
    roles = Roles(label=label if label in table else None)
    return from_columns(table, roles_like(wanted, list(table), roles, name), declared, name)


def _check_known(asked: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an argument that would not be read."""
    for key in sorted(set(asked) - set(known)):
        remedy = f"one of {', '.join(sorted(known))}"
        raise DataError.of_kind("unknown argument", key, asked[key], remedy)


def _table(given: Any, name: str) -> dict[str, Any]:
    keys = list(given.column_names if hasattr(given, "column_names") else given.columns)
    names = list(map(str, keys))
    if len(set(names)) < len(names):
        problem, remedy = "two columns have one name", "name each column once"
        raise DataError(problem, field=name, value=names[:12], remedy=remedy)
    return {column: given[key] for column, key in zip(names, keys, strict=True)}


def _roles(columns: Mapping[str, Any]) -> tuple[Roles, Declared]:
    named = ("label", "client", "split", "group")
    _check_known(columns, (*named, "features", "categories", "classes", "class_names"))
    for key in named:
        if not isinstance(columns.get(key, ""), str):
            remedy = "name a column of the table"
            raise DataError.of_kind("not the name of a column", key, columns[key], remedy)
    asked = dict(columns)
    declared = Declared.of(asked.pop("classes", None), asked.pop("class_names", None))
    features = asked.pop("features", None)
    named_features = None if features is None else tuple(map(str, features))
    return Roles(**asked, features=named_features), declared


def _hugging_face(given: Any, name: str, columns: dict[str, Any]) -> Dataset:
    """A Hugging Face dataset: a table, or a column of images or arrays beside one of labels."""
    names = list(given.column_names)
    image = columns.get("features")
    if not isinstance(image, str):
        image = next((each for each in _IMAGES if each in names), None)
    first = None if image is None or len(given) == 0 else given[0][image]
    if first is None or np.ndim(np.asarray(first)) == 0:
        return _frame(_Columns(given), name, columns)
    asked = {key: value for key, value in columns.items() if key != "features"}
    label = asked.pop("label", None) or next((n for n in _LABELS if n in names), None)
    arrays: dict[str, Any] = {"x": _stacked([given[i][image] for i in range(len(given))], name)}
    for role, usual in (("y", label), ("client", "client"), ("split", "split"), ("group", "group")):
        column = asked.pop(role, usual)
        if isinstance(column, str) and column in names:
            arrays[role] = list(given[column])
    feature = given.features.get(label) if isinstance(given.features, Mapping) and label else None
    return _arrays(arrays, name, _with_names(asked, getattr(feature, "names", None)))


class _Columns:
    """A Hugging Face table as `_frame` reads one."""

    def __init__(self, given: Any) -> None:
        self._given, self.column_names = given, list(given.column_names)

    def __getitem__(self, column: str) -> Any:
        return list(self._given[column])


def _torch_dataset(given: Any, name: str, columns: dict[str, Any]) -> Dataset:
    """A torch dataset, item by item: `(x, y)` or `x`."""
    count = len(given)
    if count == 0:
        raise DataError.of_kind("no example", name, given, "pass a dataset that is not empty")
    try:
        items = [given[i] for i in range(count)]
    except Exception as error:  # whatever the caller's own code raises
        problem = f"raises {type(error).__name__} when its items are read"
        remedy = "let every item be (x, y), or x alone"
        raise DataError.of_kind(problem, name, given, remedy) from None
    pairs = isinstance(items[0], tuple | list)
    if pairs and any(not isinstance(item, tuple | list) or len(item) != 2 for item in items):
        raise DataError.of_kind(
            "items are not (x, y)", name, given, "let every item be (x, y), or x alone"
        )
    arrays: dict[str, Any] = {"x": _stacked([item[0] if pairs else item for item in items], name)}
    if pairs:
        arrays["y"] = [_scalar(item[1]) for item in items]
        if all(isinstance(label, int) for label in arrays["y"]):
            columns = _with_names(columns, getattr(given, "classes", None))
    return _arrays(arrays, name, columns)


def _with_names(asked: dict[str, Any], names: Any) -> dict[str, Any]:
    """The names that a data set has for its classes, where nobody says otherwise."""
    if not isinstance(names, list | tuple) or not names or {"classes", "class_names"} & set(asked):
        return asked
    return asked | {"class_names": [str(each) for each in names]}


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def _stacked(rows: Sequence[Any], name: str) -> np.ndarray:
    """Examples one below the other; pictures of other packages as the arrays they are."""
    arrays = [
        row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row) for row in rows
    ]
    if len({array.shape for array in arrays}) > 1:
        remedy = "bring them to one shape: resize, pad or crop them"
        raise DataError.unshown("examples differ in shape", f"{name}.x", remedy)
    stacked = np.stack(arrays)
    # A picture without a channel axis is grey, which an array of series is not.
    return stacked[:, None] if stacked.ndim == 3 and hasattr(rows[0], "getbands") else stacked


def is_array(given: Any) -> bool:
    """Whether something is an array of numpy or torch."""
    return isinstance(given, Tensor | np.ndarray)


def _is_hugging_face(given: Any) -> bool:
    return all(
        hasattr(given, name) for name in ("column_names", "features", "__getitem__", "__len__")
    )


def is_frame(given: Any) -> bool:
    """Whether something has named columns: a pandas or polars frame, or an Arrow table."""
    named = hasattr(given, "columns") or hasattr(given, "column_names")
    return named and hasattr(given, "__getitem__") and hasattr(given, "shape")


_DOORS: tuple[tuple[Any, Any], ...] = (
    (lambda given: isinstance(given, Mapping), _mapping),
    (lambda given: isinstance(given, tuple), _pair),
    (is_array, _array),
    (lambda given: isinstance(given, list), _list),
    (_is_hugging_face, _hugging_face),
    (is_frame, _frame),
    (lambda given: hasattr(given, "__getitem__") and hasattr(given, "__len__"), _torch_dataset),
)
"""What it is known by, and how it is read; the first that fits."""


def _kind(given: Any) -> str:
    return type(given).__name__


def _refused(given: Any, name: str) -> DataError:
    if isinstance(given, str | bytes | PurePath):
        return DataError.of_kind("is a path or text, not examples", name, given, _READ_FIRST)
    value = _kind(given) + (
        " without items" if isinstance(given, list | tuple) and not given else ""
    )
    return DataError("no examples that can be read", field=name, value=value, remedy=_REMEDY)


def of_clients(clients: Any, declared: Declared, name: str) -> Dataset:
    """One dataset from what each client holds; see `Dataset.from_clients`.

    Raises:
        DataError: there is no client, or one's examples are refused, by the client's place or name.
    """
    called, items = _by_name(clients, name)
    places = [f"{name}[{key!r}]" for key in called] or [f"{name}[{i}]" for i in range(len(items))]
    alone = [is_array(item) for item in items]
    if any(alone) and not all(alone):
        first = alone.index(True)
        problem = "an array alone among clients with labels"
        remedy = "give every client as (x, y), with y None where it has no labels"
        raise DataError.of_kind(problem, places[first], items[first], remedy)
    parts = [_client(item, declared, place) for item, place in zip(items, places, strict=True)]
    sizes = torch.tensor([len(part) for part in parts])
    owners = torch.arange(len(parts)).repeat_interleave(sizes)
    joined = join([replace(part, client=None, client_names=()) for part in parts], name)
    if not called:
        return replace(joined, client=owners)
    numbers, names = owners_of(np.asarray(called), len(called), f"{name} (names of clients)")
    return replace(joined, client=numbers[owners], client_names=names)


def _by_name(clients: Any, name: str) -> tuple[list[str], list[Any]]:
    """The clients' names, none for a list, and what each holds."""
    remedy = "pass [(x, y), ...] or {name: (x, y), ...}"
    if not isinstance(clients, Mapping | list | tuple):
        problem = "no list of clients and no mapping from their names"
        raise DataError.of_kind(problem, name, clients, remedy)
    if not clients:
        raise DataError("no client", field=name, value="empty", remedy=remedy)
    if not isinstance(clients, Mapping):
        return [], list(clients)
    called = [str(key) for key in clients]
    if len(set(called)) < len(called):
        remedy = "give each client a name of its own"
        raise DataError.unshown("two clients have one name", name, remedy)
    return called, list(clients.values())


def _client(item: Any, declared: Declared, name: str) -> Dataset:
    if isinstance(item, list) and len(item) == 2 and is_array(item[0]):
        item = tuple(item)
    return dataset_of(item, name=name, **declared.given)
