"""`Dataset`: checked tensors, the one form in which examples travel through the project.

Errors about examples show settings and the shape of one example, never a value, an extreme or how
many there are: messages travel further than data may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from secure_fl.data.columns import (
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
from secure_fl.data.example_tensors import example_tensor
from secure_fl.data.layout import Layout, Meaning
from secure_fl.errors import DataError

__all__ = ["UNLABELLED", "Array", "Dataset", "Kind", "Splits"]

Kind = Literal["image", "series", "vector"]

Array = np.ndarray | Tensor


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

    Unsigned bytes are divided by 255, and channels that come last are moved to the front. Names,
    and numbers with gaps, are numbered in sorted order and kept in `class_names` and
    `client_names`. Runs with differential privacy that train on labels want `classes` or
    `class_names` given, because what is read off private labels is private.
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
        """Check arrays or tensors and wrap them; the class says how bytes and names are read.

        Args:
            x: `[N, C, H, W]`, `[N, C, L]` or `[N, F]`, finite numbers.
            y: `[N]` names or whole numbers, -1 for unlabelled; None for no labels at all.
            client: `[N]` names or whole numbers of who holds each example.
            split: `[N]` train, validation or test (0, 1, 2), in place of drawing at random.
            group: `[N]` names or whole numbers; examples of one group are never divided.
            classes: number of classes, numbered from 0.
            class_names: the classes in the order of their numbers; another label is refused.
            layout: which axis holds the channels; `auto` finds it or refuses.
            kind: what three axes are, `series` (auto) or `image` without a channel axis.
            columns: names of the columns of vectors.
            name: for summaries and errors.

        Raises:
            DataError: names the array, what is wrong with it and the remedy; never a value in it.
        """
        examples, turned = example_tensor(x, kind, layout, name)
        bare = cls(examples, torch.full((len(examples),), UNLABELLED), 0, name=name)
        bare = replace(bare, columns=_column_names(columns, bare), notes=_said(turned))
        told = Declared.of(classes, class_names, f"{name}.class_names")
        made = bare._as_declared(told) if y is None else bare.labelled_as(y, told)
        note = _renumbered("labels", made.class_names, told.names)
        return replace(made, notes=_said(*made.notes, note))._with_columns(client, split, group)

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
        """Settings and one example's shape; like errors, neither values nor how many there are."""
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
        """The examples at `index`, places `[M]` or truth values `[N]`, copied."""
        columns = {name: getattr(self, name) for name in ("x", "y", "client", "split", "group")}
        return replace(
            self, **{name: held[index] for name, held in columns.items() if held is not None}
        )

    def with_classes(
        self, classes: int | None, class_names: Sequence[str] | None = None
    ) -> Dataset:
        """The same examples in the declared numbering of classes; where nothing is declared, as it
        was read off the labels.

        Raises:
            DataError: a label is not among the declared classes.
        """
        return self._as_declared(Declared.of(classes, class_names, f"{self.name}.class_names"))

    def _as_declared(self, told: Declared) -> Dataset:
        own = Labels(self.y, self.classes, self.class_names, self.declared)
        return self._relabelled(declared_labels(own, told, f"{self.name}.y"))

    def labelled_as(self, y: Any, declared: Declared) -> Dataset:
        """The same examples with other labels, as `from_arrays` takes them.

        Raises:
            DataError: as `from_arrays`.
        """
        return self._relabelled(labels_of(y, len(self), declared, f"{self.name}.y"))

    def _relabelled(self, labels: Labels) -> Dataset:
        y, classes, names, declared = labels.y, labels.classes, labels.names, labels.declared
        return replace(self, y=y, classes=classes, class_names=names, declared=declared)

    def _with_columns(self, client: Any, split: Any, group: Any) -> Dataset:
        """The same examples with what stands beside them, as `from_arrays` takes it."""
        count, name = len(self), self.name
        owners, names = (None, ()) if client is None else owners_of(client, count, f"{name}.client")
        made = replace(
            self,
            client=owners,
            client_names=names,
            split=None if split is None else splits_of(split, count, f"{name}.split"),
            group=None if group is None else groups_of(group, count, f"{name}.group"),
            notes=_said(*self.notes, _renumbered("clients", names, ())),
        )
        made._check_groups()
        return made

    def unlabelled(self) -> Dataset:
        """The same examples without their labels."""
        return replace(self, y=torch.full_like(self.y, UNLABELLED))

    def with_labels(self) -> Dataset:
        """Only the labelled examples."""
        labelled = self.y != UNLABELLED
        return self if bool(labelled.all()) else self.take(labelled)

    def _check_groups(self) -> None:
        """Refuse a group that the split divides."""
        if self.group is None or self.split is None:
            return
        pairs = torch.stack([self.group, self.split], 1).unique(dim=0)
        if len(pairs) > len(self.group.unique()):
            raise DataError.unshown(
                "examples of one group are in two splits",
                f"{self.name}.group",
                "put all examples of a group into one split, or leave one of the two columns out",
            )


Splits = tuple[Dataset, Dataset | None]
"""Training examples, and the official test split where the source has one."""


def _column_names(columns: Sequence[str], data: Dataset) -> tuple[str, ...]:
    """Names of columns, one for each of a batch of vectors, or none."""
    named = names_of(columns, f"{data.name}.columns", "give the columns' names in a list")
    if named and (data.kind != "vector" or (len(named),) != data.shape):
        problem = f"not one name a column of examples of shape {data.shape}"
        remedy = "give a name for each column of [N, F], or leave columns out"
        raise DataError(problem, field=f"{data.name}.columns", value=len(named), remedy=remedy)
    return named


def _said(*notes: str) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


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
