"""A partition in figures: what each client holds, before hours are spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from secure_fl.data.dataset import UNLABELLED
from secure_fl.data.partitions import ClientData


@dataclass(frozen=True)
class ClientSummary:
    """One client's row: `labels` counts labelled training examples a class; `name` may be ""."""

    client: int
    group: int | None
    note: str
    examples: int
    validation: int
    test: int
    labels: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class PartitionSummary:
    """All clients, the shape of an example and how uneven labels are.

    `label_skew` is the mean total-variation distance between a client's label shares and the
    federation's: 0 is IID, towards 1 each client holds classes nobody else does. `class_names` are
    () where numbers are all there is.
    """

    shape: tuple[int, ...]
    classes: int
    label_skew: float
    clients: tuple[ClientSummary, ...]
    class_names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def summarise(clients: Sequence[ClientData]) -> PartitionSummary:
    """Figures of a partition; reads counts only."""
    classes = max(client.test.classes for client in clients)
    counts = torch.stack(
        [torch.bincount(c.train.y[c.train.y != UNLABELLED], minlength=classes) for c in clients]
    )
    names = ["" if c.name == str(c.id) else c.name for c in clients]
    rows = []
    for client, name, labels in zip(clients, names, counts.tolist(), strict=True):
        train, kept, test = (len(part) for part in (client.train, client.validation, client.test))
        rows.append(
            ClientSummary(
                client.id, client.group, client.note, train, kept, test, tuple(labels), name
            )
        )
    first, skew = clients[0].train, _label_skew(counts)
    return PartitionSummary(first.shape, classes, skew, tuple(rows), first.class_names)


def _label_skew(counts: torch.Tensor) -> float:
    labelled = counts[counts.sum(1) > 0].double()
    if len(labelled) == 0 or labelled.shape[1] == 0:
        return 0.0
    shares = labelled / labelled.sum(1, keepdim=True)
    overall = labelled.sum(0) / labelled.sum()
    return float((shares - overall).abs().sum(1).mean() / 2)
