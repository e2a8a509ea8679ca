"""What is kept apart from training: test and validation examples, whole groups at a time.

A group is one patient or recording: examples that know each other. Where data have no groups each
example is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Generator, Tensor

from secure_fl.config import FederationConfig
from secure_fl.data.columns import TEST, TRAIN, VALIDATION
from secure_fl.data.dataset import Dataset, Splits
from secure_fl.data.joining import join
from secure_fl.errors import PartitionError


@dataclass(frozen=True)
class Parts:
    """Examples by what they are for; None where nobody said which they are."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None


@dataclass(frozen=True)
class Held:
    """What one client holds before its transform; known group and name where it has one."""

    train: Dataset
    validation: Dataset | None
    test: Dataset
    group: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Units:
    """What is dealt and held out as a whole.

    Attributes:
        unit: int64 `[N]`, the unit of each example.
        label: int64 `[U]`, the commonest of its labels.
        single: whether unit i is example i.
    """

    unit: Tensor = field(repr=False)
    label: Tensor = field(repr=False)
    single: bool

    @classmethod
    def of(cls, data: Dataset, labels: Tensor) -> Units:
        """Units of a dataset by its groups, or one an example."""
        if data.group is None:
            return cls(torch.arange(len(data)), labels, single=True)
        groups, unit = data.group.unique(return_inverse=True)
        values, code = labels.unique(return_inverse=True)
        shape = (len(groups), len(values))
        counts = torch.bincount(unit * len(values) + code, minlength=prod(shape)).view(shape)
        return cls(unit, values[counts.argmax(1)], single=False)

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, units: Tensor) -> Tensor:
        """The examples of some units, in the data's order where a unit is not one example."""
        return units if self.single else torch.isin(self.unit, units).nonzero().flatten()


def separated(source: Splits) -> Parts:
    """A source's examples by its `split` column, and its official test split."""
    train, official = source
    if train.split is None:
        return Parts(train, None, official)
    kept, validation, test = (
        train.take(train.split == number) for number in (TRAIN, VALIDATION, TEST)
    )
    tests = [part for part in (test, official) if part is not None and len(part)]
    return Parts(
        kept, validation if len(validation) else None, join(tests, "test") if tests else None
    )


def tested(parts: Parts, config: FederationConfig, coins: Generator) -> tuple[Dataset, Dataset]:
    """Training and test examples, these held out of those where nobody said which they are."""
    train = parts.train
    if parts.test is not None:
        return train, parts.test
    return hold_out(train, config.data.test_fraction, strata(train, config), coins)


def hold_out(
    data: Dataset, fraction: float, strata: Tensor, generator: Generator
) -> tuple[Dataset, Dataset]:
    """(kept, held out): about `fraction` of every stratum, at least one example, or group, in
    each part.

    Raises:
        PartitionError: all examples are of one group.
    """
    units = Units.of(data, strata)
    if len(units) < 2:
        problem = "nothing can be held out of a single group or example"
        remedy = "add a split column that says what is for testing, or drop such data"
        raise PartitionError(problem, field=data.name, value="group", remedy=remedy)
    order = torch.randperm(len(units), generator=generator)
    position = torch.empty(len(units), dtype=torch.float64)
    for stratum in units.label.unique():
        members = order[units.label[order] == stratum]
        ranks = torch.arange(len(members), dtype=torch.float64)
        position[members] = (ranks + torch.rand(1, generator=generator)) / len(members)
    ranked = position.argsort(stable=True)
    count = min(max(1, round(fraction * len(units))), len(units) - 1)
    kept = data.take(units.rows(ranked[count:].sort().values))
    return kept, data.take(units.rows(ranked[:count]))


def dealt(data: Dataset, clients: int, generator: Generator) -> list[Dataset]:
    """Examples dealt out evenly, whole groups at a time; a client may get none."""
    units = Units.of(data, torch.zeros_like(data.y))
    return [
        data.take(units.rows(index))
        for index in torch.randperm(len(units), generator=generator).tensor_split(clients)
    ]


def labels_are_private(config: FederationConfig) -> bool:
    """Whether differential privacy hides who is in a client's data, labels included."""
    return config.privacy.unit != "none"


def strata(data: Dataset, config: FederationConfig) -> Tensor:
    """What a part is held out by: the labels; where they are private all examples are alike."""
    hidden = labels_are_private(config) or config.noises_sketches
    return torch.zeros_like(data.y) if hidden else data.y
