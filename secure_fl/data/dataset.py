"""`Dataset`: checked tensors, the one form in which examples travel through the project.

Errors about examples show settings and the shape of one example, never a value, an extreme or how many there are: messages travel further
than data may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from secure_fl.errors import DataError

Kind = Literal["image", "series", "vector"]
_MOST_CLASSES = 1 << 20
UNLABELLED = -1
"""The label of an example without one."""

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples with optional labels. Build it with `from_arrays`, which checks.

    Attributes:
        x: float32 `[N, C, H, W]` images, `[N, C, L]` series or `[N, F]` vectors.
        y: int64 `[N]`, `UNLABELLED` where there is no label.
        classes: number of classes, 0 without labels.
        client: int64 `[N]`, who holds the example, for natural partitions; or None.
        name: for summaries and errors.
        declared: whether somebody said how many classes there are; otherwise the number was read off the labels, and is as private as they are.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    classes: int
    client: Tensor | None = field(default=None, repr=False)
    name: str = "data"
    declared: bool = False

    @classmethod
    def from_arrays(cls, x: Array, y: Array | None = None, *, client: Array | None = None, classes: int | None = None, name: str = "data") -> Dataset:
        """Check arrays or tensors and wrap them. Unsigned bytes are divided by 255.

        Args:
            x: `[N, C, H, W]`, `[N, C, L]` or `[N, F]`, finite numbers.
            y: integers `[N]` in `0..classes-1`, or -1 for unlabelled; None for no labels at all.
            client: integers `[N]`, needed by natural partitions only.
            classes: number of classes; the largest label plus one when not given. Runs with differential privacy that train on
                labels want it given, because what is read off private labels is private.

        Raises:
            DataError: naming the array, what is wrong with it and the remedy; never a value in it, nor how many there are.
        """
        examples = _examples(x, name)
        labels = torch.full((len(examples),), UNLABELLED) if y is None else _column(y, len(examples), f"{name}.y")
        owners = None if client is None else _column(client, len(examples), f"{name}.client")
        found = int(labels.max()) + 1
        if found > _MOST_CLASSES:
            remedy = "number the classes from 0, without gaps"
            raise DataError(f"more than {_MOST_CLASSES} classes", field=f"{name}.y", value="not shown", remedy=remedy)
        return cls(examples, labels, found, owners, name).with_classes(classes)

    @classmethod
    def from_clients(cls, clients: Sequence[tuple[Array, Array | None]], *, classes: int | None = None, name: str = "data") -> Dataset:
        """One dataset from each client's `(x, y)`; use with `partition.kind = "natural"`. `classes` as in `from_arrays`."""
        parts = [cls.from_arrays(x, y, classes=classes, name=f"{name}[{i}]") for i, (x, y) in enumerate(clients)]
        owners = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
        return replace(join(parts, name), client=owners)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        """Settings and one example's shape; like errors, it tells neither values nor how many there are."""
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
    def labelled(self) -> bool:
        """Whether any example has a label."""
        return bool((self.y != UNLABELLED).any())

    def take(self, index: Tensor) -> Dataset:
        """The examples at `index` `[M]`, copied."""
        return replace(self, x=self.x[index], y=self.y[index], client=None if self.client is None else self.client[index])

    def with_classes(self, classes: int | None) -> Dataset:
        """The same examples, their labels checked, with the number of classes declared; None leaves it as it was read off the labels.

        Raises:
            DataError: a label is below -1, or not below `classes`.
        """
        if int(self.y.min()) < UNLABELLED or (classes is not None and int(self.y.max()) >= classes):
            problem = f"labels outside {'-1, 0, 1, …' if classes is None else f'0..{classes - 1}'}"
            remedy = "number the classes from 0, and mark examples without a label with -1"
            raise DataError(problem, field=f"{self.name}.y", value="not shown", remedy=remedy)
        return self if classes is None else replace(self, classes=classes, declared=True)

    def unlabelled(self) -> Dataset:
        """The same examples without their labels."""
        return replace(self, y=torch.full_like(self.y, UNLABELLED))

    def with_labels(self) -> Dataset:
        """Only the labelled examples."""
        return self if bool((self.y != UNLABELLED).all()) else self.take(torch.nonzero(self.y != UNLABELLED).flatten())


Splits = tuple[Dataset, Dataset | None]
"""Training examples, and the official test split where the source has one."""


def join(parts: Sequence[Dataset], name: str) -> Dataset:
    """Concatenate datasets of one shape; label numbers are kept, so equal numbers mean the same class number.

    Raises:
        DataError: shapes differ.
    """
    for part in parts[1:]:
        if part.shape != parts[0].shape:
            raise DataError(
                f"shape differs from that of {parts[0].name}, {parts[0].shape}",
                field=part.name,
                value=part.shape,
                remedy="set data.image_size, so that all images get one size; channels must agree",
            )
    clients = [part.client for part in parts]
    owners = None if any(c is None for c in clients) else torch.cat([c for c in clients if c is not None])
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    return Dataset(x, y, max(part.classes for part in parts), owners, name, all(part.declared for part in parts))


def _examples(x: Array, name: str) -> Tensor:
    """`x` as finite float32 of two to four dimensions."""
    field = f"{name}.x"
    if isinstance(x, Tensor):
        array = (x.float() if x.is_floating_point() else x).detach().cpu().numpy()
    else:
        try:
            array = np.asarray(x)
        except ValueError:
            raise DataError("examples differ in shape", field=field, value=type(x).__name__, remedy="pad or crop them to one shape") from None
    if array.dtype.kind not in "fiub":
        raise DataError("not numbers", field=field, value=str(array.dtype), remedy="convert it to float32 or uint8")
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        remedy = "use [N, C, H, W] for images, [N, C, L] for series or [N, F] for vectors, with N at least 1"
        raise DataError("not a batch of examples", field=field, value=f"{array.ndim} axes", remedy=remedy)
    examples = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    if array.dtype == np.uint8:
        examples /= 255
    if not bool(torch.isfinite(examples).all()):
        raise DataError("NaN or infinity", field=field, value="not shown", remedy="drop or impute such examples before loading")
    return examples


def _column(values: Array, length: int, field: str) -> Tensor:
    """Integers, one an example."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (length,):
        raise DataError("not one value for each example", field=field, value=f"{array.ndim} axes", remedy="give it the shape (N,), N as in x")
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.array_equal(array, np.round(array))):
        raise DataError("not integers", field=field, value=str(array.dtype), remedy="number the categories from 0")
    return torch.from_numpy(array.astype(np.int64))
