"""What each client holds, given from Python, becomes one `Dataset` that says who holds what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from secure_fl.data.columns import Declared, owners_of
from secure_fl.data.dataset import Dataset
from secure_fl.data.given import dataset_of, is_array
from secure_fl.data.joining import join
from secure_fl.errors import DataError


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
        raise DataError(
            "an array alone among clients with labels",
            field=places[first],
            value=type(items[first]).__name__,
            remedy="give every client as (x, y), with y None where it has no labels",
        )
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
        raise DataError(problem, field=name, value=type(clients).__name__, remedy=remedy)
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
    return dataset_of(item, name=name, classes=declared.classes, class_names=declared.names or None)
