"""Several datasets as one: classes, clients, splits and groups are brought to one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secure_fl.data.columns import TRAIN, UNLABELLED
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError


def join(parts: Sequence[Dataset], name: str) -> Dataset:
    """Concatenate datasets of one shape. Classes and clients that have names are one where their
    names are; groups of different parts are different.

    Raises:
        DataError: shapes or columns differ.
    """
    for part in parts[1:]:
        _check_alike(parts[0], part)
    parts = same_classes(parts)
    first = parts[0]
    owners, client_names = _joined_owners(parts)
    return Dataset(
        torch.cat([part.x for part in parts]) if len(parts) > 1 else first.x,
        torch.cat([part.y for part in parts]),
        max(part.classes for part in parts),
        owners,
        name,
        all(part.declared for part in parts),
        first.class_names,
        client_names,
        _joined_splits(parts),
        _joined_groups(parts),
        first.columns,
        all(part.columns_declared for part in parts),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _check_alike(first: Dataset, part: Dataset) -> None:
    """Refuse a part whose examples, or columns, are not those of the first."""
    if part.shape != first.shape:
        problem = f"shape differs from that of {first.name}, {first.shape}"
        remedy = (
            "set data.image_size, so that all images get one size; channels must agree"
            if part.kind == "image"
            else "bring them to one shape: cut series into windows of one length, or pad "
            "them; give tables the same columns"
        )
        raise DataError(problem, field=part.name, value=part.shape, remedy=remedy)
    if part.columns and first.columns and part.columns != first.columns:
        problem = f"columns differ from those of {first.name}"
        remedy = "give both the same columns; for text, name its values in data.sources.categories"
        raise DataError(
            problem, field=part.name, value=f"{len(part.columns)} columns", remedy=remedy
        )


def same_classes(parts: Sequence[Dataset]) -> list[Dataset]:
    """The same examples with one numbering of classes: equal names, or numbers, become
    equal numbers.

    Parts that are numbered alike stay as they are.
    """
    if len({part.class_names for part in parts}) == 1:
        return list(parts)
    own = [part.class_names or tuple(map(str, range(part.classes))) for part in parts]
    place, kept = _one_numbering(own)
    made = []
    for part, mine in zip(parts, own, strict=True):
        table = torch.tensor([*(place[name] for name in mine), UNLABELLED])
        made.append(replace(part, y=table[part.y], classes=len(place), class_names=kept))
    return made


def _joined_owners(parts: Sequence[Dataset]) -> tuple[Tensor | None, tuple[str, ...]]:
    clients = [part.client for part in parts if part.client is not None]
    if len(clients) < len(parts):
        return None, ()
    if len({part.client_names for part in parts}) == 1:
        return torch.cat(clients), parts[0].client_names
    own = [
        part.client_names or tuple(map(str, range(int(client.max()) + 1)))
        for part, client in zip(parts, clients, strict=True)
    ]
    place, kept = _one_numbering(own)
    tables = [torch.tensor([place[name] for name in mine]) for mine in own]
    return torch.cat([t[client] for t, client in zip(tables, clients, strict=True)]), kept


def _joined_splits(parts: Sequence[Dataset]) -> Tensor | None:
    """What nobody marked is for training."""
    if all(part.split is None for part in parts):
        return None
    return torch.cat(
        [torch.full((len(part),), TRAIN) if part.split is None else part.split for part in parts]
    )


def _joined_groups(parts: Sequence[Dataset]) -> Tensor | None:
    """Examples of a part without groups are each a group of their own."""
    if all(part.group is None for part in parts):
        return None
    groups, first = [], 0
    for part in parts:
        mine = torch.arange(len(part)) if part.group is None else part.group
        groups.append(mine + first)
        first += int(mine.max()) + 1 if len(mine) else 0
    return torch.cat(groups)


def _one_numbering(own: Sequence[Sequence[str]]) -> tuple[dict[str, int], tuple[str, ...]]:
    """A number for each name, numbers first, and the names in order, () where they are these."""

    def order(name: str) -> tuple[int, int, str]:
        return (0, int(name), name) if name.removeprefix("-").isdecimal() else (1, 0, name)

    names = tuple(sorted({name for each in own for name in each}, key=order))
    kept = () if names == tuple(map(str, range(len(names)))) else names
    return {name: number for number, name in enumerate(names)}, kept
