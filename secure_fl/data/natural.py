"""Clients that the data bring along: each keeps its own examples, some of them for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from secure_fl.config import FederationConfig, PartitionConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.holdout import Held, Parts, separated, tested
from secure_fl.data.joining import join
from secure_fl.errors import PartitionError
from secure_fl.seeds import generator_of


def natural_clients(data: Dataset, config: FederationConfig, seed: int) -> list[Held]:
    """Each client's own examples, its test split held out of them by coins that no other client's
    number of examples moves.

    Raises:
        PartitionError: a client holds too few examples, or a group is with two clients.
    """
    assert data.client is not None
    check_groups(data)
    names = data.client_names
    return [
        held_by(
            data.take(data.client == owner), i, names[owner] if names else str(owner), config, seed
        )
        for i, owner in enumerate(data.client.unique().tolist())
    ]


def held_by(own: Dataset, i: int, name: str, config: FederationConfig, seed: int) -> Held:
    """What the i-th client of all holds, whose examples these are.

    Raises:
        PartitionError: it holds too few.
    """
    mine = separated((replace(own, name=f"client {name}"), None))
    _check_enough(mine, i, name, config.partition.min_examples)
    named = replace(mine, train=replace(mine.train, name=said_in_errors(i, name)))
    train, test = tested(named, config, generator_of(seed, "held out", i))
    few = test.take(torch.arange(min(len(test), config.data.test_limit)))
    return Held(replace(train, name=f"client {name}"), mine.validation, few, None, name)


def _check_enough(mine: Parts, i: int, name: str, least: int) -> None:
    """Refuse a client with too few examples to train on, once a test split is held out."""
    if len(mine.train) >= least + (mine.test is None):
        return
    fewest = PartitionConfig.model_fields["min_examples"].default
    remedy = "drop the client, or give it more examples" + (
        ", or lower partition.min_examples" if least > fewest else ""
    )
    problem = f"{said_in_errors(i, name)} holds too few examples to train and test on"
    raise PartitionError(problem, field="partition.min_examples", value=least, remedy=remedy)


def said_in_errors(i: int, name: str) -> str:
    """A client in an error: by its name, or its place where names are numbers, which are data."""
    return f"client {i}" if _is_number(name.rpartition("/")[2]) else f"client {name!r}"


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def check_groups(data: Dataset) -> None:
    """Refuse a group that is with two clients: one could train on what the other is tested on.

    Raises:
        PartitionError: there is one.
    """
    if data.group is None or data.client is None:
        return
    if len(torch.stack([data.group, data.client], 1).unique(dim=0)) > len(data.group.unique()):
        remedy = "name each client's groups apart (client/recording), or leave the group column out"
        raise PartitionError.unshown(
            "examples of one group are with two clients", "data.sources.group", remedy
        )


def joined_clients(parts: Sequence[Dataset]) -> Dataset:
    """All sources together. Clients that are called the same are one; equal numbers in two sources
    are different clients.

    Raises:
        PartitionError: a source does not say who its clients are.
    """
    if any(part.client is None for part in parts):
        remedy = "add a column `client`, name it in data.sources.client, or change partition.kind"
        raise PartitionError(
            "no client column", field="partition.kind", value="natural", remedy=remedy
        )
    if len(parts) == 1:
        return parts[0]
    called: list[list[str]] = []
    for number, part in enumerate(parts):
        assert part.client is not None
        names = part.client_names or tuple(map(str, range(int(part.client.max()) + 1)))
        called.append([f"{number}/{name}" if _is_number(name) else name for name in names])
    everybody = dict.fromkeys(name for names in called for name in names)
    place = {name: number for number, name in enumerate(everybody)}
    made = []
    for part, own in zip(parts, called, strict=True):
        assert part.client is not None
        client = torch.tensor([place[name] for name in own])[part.client]
        made.append(replace(part, client=client, client_names=tuple(place)))
    return join(made, "+".join(part.name for part in parts))
