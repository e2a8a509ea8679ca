"""`Dataset`: checked tensors, the one form in which examples travel through the project.

Errors about examples show settings and the shape of one example, never a value, an extreme or how
many there are: messages travel further than data may.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from secure_fl.data.columns import (
    TRAIN,
    UNLABELLED,
    Declared,
    Labels,
    declared_labels,
    groups_of,
    labels_of,
    names_of,
    owners_of,
    splits_of,
)
from secure_fl.data.layout import Layout, Meaning, oriented
from secure_fl.errors import DataError

__all__ = ["UNLABELLED", "Array", "Dataset", "Kind", "Splits", "join", "same_classes"]

Kind = Literal["image", "series", "vector"]

Array = np.ndarray | Tensor
_AT_A_TIME = 1 << 24
"""Numbers that are looked at or converted at a time, so that memory beside the examples does not
follow them.
"""


@dataclass(frozen=True)
class Dataset:
    """Examples with optional labels. Build it with `from_arrays`, `from_clients` or `of`,
    which check.

    Attributes:
        x: float32 `[N, C, H, W]` images, `[N, C, L]` series or `[N, F]` vectors.
        y: int64 `[N]`, `UNLABELLED` where there is no label.
        classes: number of classes, 0 without labels.
        client: int64 `[N]`, who holds the example, for natural partitions; or None.
        name: for summaries and errors.
        declared: whether somebody said which classes there are; otherwise they were read off the
            labels, and are as private as they are.
        class_names: names of the classes in number order; () where numbers are all there is.
        client_names: names of the values of `client`, in number order; () where numbers are all
            there is.
        split: int64 `[N]`, 0 train, 1 validation, 2 test; None where nobody said it.
        group: int64 `[N]`, equal for examples that are never divided (windows of one recording);
            or None.
        columns: names of the `F` columns of vectors, or ().
        columns_declared: whether the columns follow from what somebody said; otherwise values were
            read off the examples to make them.
        notes: what was done to the examples when they were read, in words, for whoever holds them.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    classes: int
    client: Tensor | None = field(default=None, repr=False)
    name: str = "data"
    declared: bool = False
    class_names: tuple[str, ...] = field(default=(), repr=False)
    client_names: tuple[str, ...] = field(default=(), repr=False)
    split: Tensor | None = field(default=None, repr=False)
    group: Tensor | None = field(default=None, repr=False)
    columns: tuple[str, ...] = field(default=(), repr=False)
    columns_declared: bool = True
    notes: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_arrays(
        cls,
        x: Array,
        y: Any = None,
        *,
        client: Any = None,
        split: Any = None,
        group: Any = None,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        layout: Layout = "auto",
        kind: Meaning = "auto",
        columns: Sequence[str] = (),
        name: str = "data",
    ) -> Dataset:
        """Check arrays or tensors and wrap them. Unsigned bytes are divided by 255; channels that
        come last are moved to the front.

        Args:
            x: `[N, C, H, W]`, `[N, C, L]` or `[N, F]`, finite numbers.
            y: `[N]` names or whole numbers, -1 for unlabelled; None for no labels at all. Names,
                and numbers with gaps, are numbered in sorted order and kept in `class_names`.
            client: `[N]` names or whole numbers of who holds each example.
            split: `[N]` train, validation or test (0, 1, 2); examples then go there instead of
                being held out at random.
            group: `[N]` names or whole numbers; examples of one group are never divided between
                training, validation, test or clients.
            classes: number of classes, numbered from 0. Runs with differential privacy that train
                on labels want it, or `class_names`, given, because what is read off private labels
                is private.
            class_names: the classes in the order of their numbers; another label is refused.
            layout: which axis holds the channels; `auto` finds it or refuses.
            kind: what three axes are, `series` (auto) or `image` without a channel axis.
            columns: names of the columns of vectors.

        Raises:
            DataError: naming the array, what is wrong with it and the remedy; never a value in it,
                nor how many there are.
        """
        examples, turned = _examples(x, kind, layout, name)
        named = names_of(columns, f"{name}.columns", "give the columns' names in a list")
        if named and (examples.ndim != 2 or len(named) != examples.shape[1]):
            remedy = "give a name for each column of [N, F], or leave columns out"
            raise DataError(
                f"not one name a column of examples of shape {tuple(examples.shape[1:])}",
                field=f"{name}.columns",
                value=len(named),
                remedy=remedy,
            )
        count = len(examples)
        told = Declared.of(classes, class_names, f"{name}.class_names")
        bare = Labels(torch.full((count,), UNLABELLED), 0, (), False)
        labels = (
            declared_labels(bare, told, f"{name}.y")
            if y is None
            else labels_of(y, count, told, f"{name}.y")
        )
        owners, names = (None, ()) if client is None else owners_of(client, count, f"{name}.client")
        made = cls(
            examples,
            labels.y,
            labels.classes,
            owners,
            name,
            labels.declared,
            labels.names,
            names,
            columns=named,
        )
        made = replace(
            made,
            split=None if split is None else splits_of(split, count, f"{name}.split"),
            group=None if group is None else groups_of(group, count, f"{name}.group"),
            notes=tuple(
                filter(
                    None,
                    (
                        turned,
                        _renumbered("labels", labels.names, told.names),
                        _renumbered("clients", names, ()),
                    ),
                )
            ),
        )
        made._check_groups()
        return made

    @classmethod
    def from_clients(
        cls,
        clients: Sequence[Any] | Mapping[Any, Any],
        *,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "data",
    ) -> Dataset:
        """One dataset from what each client holds, which makes them the run's clients.

        Args:
            clients: `(x, y)`, `x` alone or a `Dataset` for each client, in a list, or in a mapping
                from the clients' names.
            classes: as in `from_arrays`.
            class_names: as in `from_arrays`.
            name: for summaries and errors.

        Raises:
            DataError: as `from_arrays`, with the client's place or name.
        """
        from secure_fl.data.given import of_clients

        return of_clients(clients, Declared.of(classes, class_names), name)

    @classmethod
    def of(cls, given: Any, **columns: Any) -> Dataset:
        """Anything that holds examples as a `Dataset`: arrays, `(x, y)`, a mapping of arrays, a
        frame, a torch or Hugging Face dataset.

        Args:
            given: the examples.
            columns: what `from_arrays` takes; for frames and tables `label`, `client`, `split`,
                `group` and `features` name columns.

        Raises:
            DataError: it is none of these, or what `from_arrays` refuses.
        """
        from secure_fl.data.given import dataset_of

        return dataset_of(given, **columns)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        """Settings and one example's shape; like errors, it tells neither values nor how many
        there are.
        """
        return f"Dataset({self.name!r}, {self.kind} {self.shape}, classes={self.classes})"

    @property
    def kind(self) -> Kind:
        """What the dimensions of `x` mean."""
        kinds: dict[int, Kind] = {4: "image", 3: "series", 2: "vector"}
        return kinds[self.x.ndim]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    @property
    def reading(self) -> str:
        """What an example was read as, in words."""
        return _in_words(self.shape, self.columns)

    @property
    def labelled(self) -> bool:
        """Whether any example has a label."""
        return bool((self.y != UNLABELLED).any())

    @property
    def labels(self) -> int:
        """How many examples have a label."""
        return int((self.y != UNLABELLED).sum())

    def take(self, index: Tensor) -> Dataset:
        """The examples at `index` `[M]`, copied."""
        client, split, group = (
            None if values is None else values[index]
            for values in (self.client, self.split, self.group)
        )
        return replace(
            self, x=self.x[index], y=self.y[index], client=client, split=split, group=group
        )

    def with_classes(
        self, classes: int | None, class_names: Sequence[str] | None = None
    ) -> Dataset:
        """The same examples in the declared numbering of classes; where nothing is declared, as it
        was read off the labels.

        Raises:
            DataError: a label is not among the declared classes.
        """
        told = Declared.of(classes, class_names, f"{self.name}.class_names")
        own = Labels(self.y, self.classes, self.class_names, self.declared)
        labels = declared_labels(own, told, f"{self.name}.y")
        return replace(
            self,
            y=labels.y,
            classes=labels.classes,
            class_names=labels.names,
            declared=labels.declared,
        )

    def labelled_as(self, y: Any, declared: Declared) -> Dataset:
        """The same examples with other labels, as `from_arrays` takes them.

        Raises:
            DataError: as `from_arrays`.
        """
        labels = labels_of(y, len(self), declared, f"{self.name}.y")
        return replace(
            self,
            y=labels.y,
            classes=labels.classes,
            class_names=labels.names,
            declared=labels.declared,
        )

    def unlabelled(self) -> Dataset:
        """The same examples without their labels."""
        return replace(self, y=torch.full_like(self.y, UNLABELLED))

    def with_labels(self) -> Dataset:
        """Only the labelled examples."""
        return (
            self
            if bool((self.y != UNLABELLED).all())
            else self.take(torch.nonzero(self.y != UNLABELLED).flatten())
        )

    def _check_groups(self) -> None:
        """Refuse a group that the split divides."""
        if self.group is None or self.split is None:
            return
        pairs = torch.stack([self.group, self.split], 1).unique(dim=0)
        if len(pairs) > len(self.group.unique()):
            remedy = (
                "put all examples of a group into one split, or leave one of the two columns out"
            )
            raise DataError(
                "examples of one group are in two splits",
                field=f"{self.name}.group",
                value="not shown",
                remedy=remedy,
            )


Splits = tuple[Dataset, Dataset | None]
"""Training examples, and the official test split where the source has one."""


def join(parts: Sequence[Dataset], name: str) -> Dataset:
    """Concatenate datasets of one shape. Classes and clients that have names are one where their
    names are; groups of different parts are different.

    Raises:
        DataError: shapes differ.
    """
    for part in parts[1:]:
        if part.shape != parts[0].shape:
            raise DataError(
                f"shape differs from that of {parts[0].name}, {parts[0].shape}",
                field=part.name,
                value=part.shape,
                remedy="set data.image_size, so that all images get one size; channels must agree"
                if part.kind == "image"
                else "bring them to one shape: cut series into windows of one length, or pad "
                "them; give tables the same columns",
            )
        if part.columns and parts[0].columns and part.columns != parts[0].columns:
            remedy = (
                "give both the same columns in the same order; for text, name its values in "
                "data.sources.categories"
            )
            raise DataError(
                f"columns differ from those of {parts[0].name}",
                field=part.name,
                value=f"{len(part.columns)} columns",
                remedy=remedy,
            )
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


def same_classes(parts: Sequence[Dataset]) -> list[Dataset]:
    """The same examples with one numbering of classes: equal names, or numbers, become
    equal numbers.

    Parts that are numbered alike stay as they are.
    """
    if len({part.class_names for part in parts}) == 1:
        return list(parts)
    own = [part.class_names or tuple(map(str, range(part.classes))) for part in parts]
    names = _sorted_names({name for each in own for name in each})
    place = {name: number for number, name in enumerate(names)}
    kept = () if names == tuple(map(str, range(len(names)))) else names
    made = []
    for part, mine in zip(parts, own, strict=True):
        table = torch.tensor([*(place[name] for name in mine), UNLABELLED])
        made.append(replace(part, y=table[part.y], classes=len(names), class_names=kept))
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
    names = _sorted_names({name for each in own for name in each})
    place = {name: number for number, name in enumerate(names)}
    joined = torch.cat(
        [
            torch.tensor([place[name] for name in mine])[client]
            for mine, client in zip(own, clients, strict=True)
        ]
    )
    return joined, () if names == tuple(map(str, range(len(names)))) else names


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


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    """Numbers before text, and as numbers are sorted."""
    return tuple(
        sorted(
            names,
            key=lambda name: (
                (0, int(name), name) if name.removeprefix("-").isdecimal() else (1, 0, name)
            ),
        )
    )


def _examples(x: Any, kind: Meaning, layout: Layout, name: str) -> tuple[Tensor, str]:
    """`x` as finite float32 of two to four dimensions, channels first, and what was turned."""
    field = f"{name}.x"
    if np.ma.is_masked(x):
        raise DataError(
            "values are masked",
            field=field,
            value="not shown",
            remedy="drop or impute such examples before loading",
        )
    if isinstance(x, Tensor):
        try:
            array = (x.float() if x.is_floating_point() else x).detach().cpu().numpy()
        except (TypeError, RuntimeError):  # sparse, quantised, without content
            raise DataError(
                "not a dense tensor", field=field, value=str(x.layout), remedy="pass x.to_dense()"
            ) from None
    else:
        try:
            array = np.asarray(x)
        except Exception:  # what a lazy array raises may quote an example
            raise DataError(
                "examples differ in shape",
                field=field,
                value=type(x).__name__,
                remedy="pad or crop them to one shape",
            ) from None
    if array.dtype.kind not in "fiub":
        raise DataError(
            "not numbers",
            field=field,
            value=str(array.dtype),
            remedy="convert it to float32 or uint8",
        )
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        remedy = (
            "use [N, C, H, W] for images, [N, C, L] for series or [N, F] "
            "for vectors, with N at least 1"
        )
        raise DataError(
            "not a batch of examples", field=field, value=f"{array.ndim} axes", remedy=remedy
        )
    turned, note = oriented(array, kind, layout, field)
    return _as_floats(turned, field), note


def _as_floats(array: np.ndarray, field: str) -> Tensor:
    """Finite float32 numbers in a row. Memory-mapped ones that are that already stay where they
    are; bytes are divided by 255.
    """
    mapped = (
        _is_mapped(array)
        and array.dtype == np.float32
        and array.flags.c_contiguous
        and array.flags.writeable
    )
    examples = torch.from_numpy(array if mapped else np.empty(array.shape, np.float32))
    rows = max(1, _AT_A_TIME // max(1, array[0].size))
    for first in range(0, len(array), rows):
        block = examples[first : first + rows]
        if not mapped:
            with np.errstate(over="ignore"):
                block.numpy()[:] = array[first : first + rows]
            if array.dtype == np.uint8:
                block /= 255
        if not bool(torch.isfinite(block).all()):
            raise DataError(
                "NaN or infinity",
                field=field,
                value="not shown",
                remedy="drop or impute such examples before loading",
            )
    return examples


def _is_mapped(array: object) -> bool:
    """Whether an array lies in a file."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap | mmap.mmap)


def _renumbered(what: str, names: tuple[str, ...], declared: tuple[str, ...]) -> str:
    """A note where names were given numbers that nobody declared."""
    if not names or declared:
        return ""
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{what} {shown} are numbered 0..{len(names) - 1} in sorted order"


def _in_words(shape: tuple[int, ...], columns: tuple[str, ...]) -> str:
    def many(count: int, word: str) -> str:
        return f"{count} {word}{'' if count == 1 else 's'}"

    if len(shape) == 3:
        return f"images of {shape[1]} x {shape[2]} pixels, {many(shape[0], 'channel')}"
    if len(shape) == 2:
        return f"{many(shape[1], 'step')} of {many(shape[0], 'channel')}"
    return many(shape[0], "column") + (
        f": {', '.join(columns[:12])}{', …' if len(columns) > 12 else ''}" if columns else ""
    )
