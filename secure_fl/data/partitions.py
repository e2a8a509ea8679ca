"""How clients differ: who holds which examples, and what is done to them.

Every partition is a function of the data, the configuration and the seed. A client's test set is
drawn from the held-out split with the client's own label shares and put through the client's own
transform, so each client is tested on its own law.

With differential privacy nothing is held out or drawn by labels, since who is in a test or
validation set would then show them: test and validation sets are random, by coins of their own, and
tell a client's law from others' by its transform alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset, Splits
from secure_fl.data.dealing import SPLITTERS, too_few
from secure_fl.data.holdout import (
    Held,
    Parts,
    Units,
    dealt,
    hold_out,
    labels_are_private,
    separated,
    strata,
    tested,
)
from secure_fl.data.joining import join, same_classes
from secure_fl.data.natural import held_by, joined_clients, natural_clients, said_in_errors
from secure_fl.data.transforms import Transform, transforms_for
from secure_fl.errors import DataError, PartitionError
from secure_fl.seeds import derive_seed, generator_of


@dataclass(frozen=True)
class ClientData:
    """One client's examples.

    Attributes:
        id: position in the roster.
        train, validation, test: `validation` has no examples when none are kept.
        group: which of the partition's known groups the client is in, or None. For
            measurement only.
        note: what was done to its data, in words.
        name: the client's name, its number as text where it has none. It stays with the client and
            with whoever simulates it.
        sketched: the training examples as a sketch of them reads them, where these are not `train`:
            each from its own values only.
    """

    id: int
    train: Dataset
    validation: Dataset
    test: Dataset
    group: int | None
    note: str
    name: str = ""
    sketched: Dataset | None = None

    def __repr__(self) -> str:
        return f"ClientData({self.id}, {self.train!r}, group={self.group})"


def partition(sources: Sequence[Splits], config: FederationConfig) -> list[ClientData]:
    """Deal the examples of all sources out to clients.

    Raises:
        PartitionError: more clients than examples, a client below `partition.min_examples`, labels
            or client column missing, or a kind that would dissolve the clients that the data bring.
        DataError: examples are private, and what their columns are was read off them.
    """
    config, sources = resolved(config, sources), _alike(sources)
    _check_columns([train for train, _ in sources], config)
    spec, seed = config.partition, config.seed
    if spec.kind == "natural":
        held = natural_clients(
            joined_clients([split for split, _ in sources]), config, derive_seed(seed, "partition")
        )
    elif spec.kind == "source":
        held = _by_source([separated(source) for source in sources], config)
    else:
        parts = _joined(_all_tested([separated(source) for source in sources], config))
        held = _deal(parts, config, spec.clients, derive_seed(seed, "partition"))
    transforms = transforms_for(spec, held[0].train, seed)
    clients = [_client(i, part, transforms, config) for i, part in enumerate(held)]
    return [_labelled(client, len(held), config) for client in clients]


def own_client(
    own: Dataset, number: int, name: str, clients: int, config: FederationConfig
) -> ClientData:
    """One natural client, from its own examples alone: as `partition` gives it among all others.

    Args:
        own: its examples, classes numbered as everybody's are.
        number: its place among the clients.
        name: its name.
        clients: how many there are.

    Raises:
        PartitionError, DataError: as `partition`.
    """
    _check_columns([own], config)
    held = held_by(own, number, name, config, derive_seed(config.seed, "partition"))
    return _labelled(_client(number, held, (), config), clients, config)


def resolved(
    config: FederationConfig, sources: Sequence[Splits], *, own: bool = False
) -> FederationConfig:
    """The configuration with the kind of partition that `auto` stands for on these data.

    Args:
        own: whether the data were given from Python, in place of the configuration's sources. Only
            known sets of images are rotated unasked.

    Raises:
        PartitionError: the data say who holds what and the kind would deal it anew, or there are
            more groups than clients.
    """
    spec = config.partition
    brought = any(train.client is not None for train, _ in sources) and not spec.ignore_clients
    if spec.kind == "auto":
        images = all(train.kind == "image" for train, _ in sources)
        dealt_anew = "rotation" if config.data.packaged and not own and images else "iid"
        spec = spec.model_copy(update={"kind": "natural" if brought else dealt_anew})
        config = config.model_copy(update={"partition": spec})
    elif brought and spec.kind != "natural":
        remedy = 'set it to "natural", or dissolve them by partition.ignore_clients = true'
        problem = "the data bring clients of their own, who would be dissolved"
        raise PartitionError(problem, field="partition.kind", value=spec.kind, remedy=remedy)
    if spec.grouped and spec.groups > spec.clients:
        problem = f"more groups than the {spec.clients} clients"
        remedy = f"at most {spec.clients}, or more clients"
        raise PartitionError(problem, field="partition.groups", value=spec.groups, remedy=remedy)
    return config


def count_classes(clients: Sequence[ClientData], config: FederationConfig) -> int:
    """Number of classes that models and sketches are made for; 0 without labels, or where nothing
    is made for it.

    Raises:
        DataError: labels are private, and the number was read off them.
    """
    if not any(client.train.labelled for client in clients):
        return 0
    if not labels_are_private(config) or all(client.train.declared for client in clients):
        return max(client.test.classes for client in clients)
    if config.needs_classes:
        problem = "read off private labels, and every model would show it"
        remedy = "set data.classes or data.class_names, or Dataset.from_arrays(..., classes=...)"
        raise DataError(problem, field="data.classes", value=None, remedy=remedy)
    return 0


def _check_columns(parts: Sequence[Dataset], config: FederationConfig) -> None:
    """Refuse columns that were read off examples, where these are private."""
    if labels_are_private(config) and not all(part.columns_declared for part in parts):
        remedy = "name text columns' values in data.sources.categories, or leave the columns out"
        problem = "columns were made of values read off private examples, which models would show"
        raise DataError(problem, field="data.sources.categories", value=None, remedy=remedy)


def _alike(sources: Sequence[Splits]) -> list[Splits]:
    """The sources with one numbering of classes."""
    given = [part for source in sources for part in source if part is not None]
    parts = iter(same_classes(given))
    return [(next(parts), None if test is None else next(parts)) for _, test in sources]


def _by_source(sources: Sequence[Parts], config: FederationConfig) -> list[Held]:
    """Client i holds examples of source i modulo the number of sources."""
    clients, count = config.partition.clients, len(sources)
    if count < 2:
        problem = "a partition by source needs several sources"
        remedy = "add a second [[data.sources]] table"
        raise PartitionError(problem, field="data.sources", value=count, remedy=remedy)
    if clients < count:
        problem = f"{count} sources need at least as many clients"
        remedy = f"set it to {count} or more"
        raise PartitionError(problem, field="partition.clients", value=clients, remedy=remedy)
    shares = []
    for number, parts in enumerate(sources):
        size = len(range(number, clients, count))
        shares.append(_deal(parts, config, size, derive_seed(config.seed, "partition", number)))
    return [replace(shares[i % count][i // count], group=i % count) for i in range(clients)]


def _deal(parts: Parts, config: FederationConfig, clients: int, seed: int) -> list[Held]:
    """Hold out a test split where there is none, then split both among `clients`."""
    spec, generator = config.partition, torch.Generator().manual_seed(seed)
    train, test = tested(parts, config, generator)
    units = Units.of(train, train.y)
    if clients > len(units):
        what = "examples" if train.group is None else "groups of examples"
        problem = f"more clients than training {what}"
        remedy = "use fewer clients or more examples"
        raise PartitionError(problem, field="partition.clients", value=clients, remedy=remedy)
    owned = [
        units.rows(index) for index in SPLITTERS[spec.kind](units.label, spec, clients, generator)
    ]
    if min(len(index) for index in owned) < spec.min_examples:
        raise too_few(spec)
    kept: list[Dataset] | list[None] = [None] * clients
    if parts.validation is not None:
        kept = dealt(parts.validation, clients, generator_of(seed, "validation"))
    held = []
    for i, index in enumerate(owned):
        mine = train.take(index)
        if labels_are_private(config):
            mine_test = _at_random(test, config, derive_seed(seed, "test", i))
        else:
            mine_test = _like(mine, test, config.data.test_limit, generator)
        held.append(Held(mine, kept[i], mine_test, i % spec.groups if spec.grouped else None))
    return held


def _joined(parts: Sequence[Parts]) -> Parts:
    """The examples of all sources together."""
    validations = [part.validation for part in parts if part.validation is not None]
    tests = [part.test for part in parts if part.test is not None]
    return Parts(
        join([part.train for part in parts], "+".join(part.train.name for part in parts)),
        join(validations, "validation") if validations else None,
        join(tests, "test") if tests else None,
    )


def _all_tested(parts: Sequence[Parts], config: FederationConfig) -> list[Parts]:
    """Of sources that do not say what is for testing, where others do, it is held out singly."""
    if len({part.test is None for part in parts}) == 1:
        return list(parts)
    made = []
    for number, part in enumerate(parts):
        train, test = tested(part, config, generator_of(config.seed, "source held out", number))
        made.append(replace(part, train=train, test=test))
    return made


def _at_random(test: Dataset, config: FederationConfig, seed: int) -> Dataset:
    """At most `data.test_limit` test examples, by coins that training labels do not move."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    return test.take(order[: config.data.test_limit])


def _like(mine: Dataset, test: Dataset, limit: int, generator: Generator) -> Dataset:
    """Test examples in the label shares of `mine`: `limit`, or what the scarcest label allows."""
    order = torch.randperm(len(test), generator=generator)
    values, counts = mine.y.unique(return_counts=True)
    available = torch.tensor([int((test.y == value).sum()) for value in values])
    shares = torch.where(available > 0, counts, 0).double()
    if not bool((shares > 0).any()):
        return test.take(order[:limit])
    shares = shares / shares.sum()
    total = min(float(limit), float((available / shares)[shares > 0].min()))
    wanted = (shares * total).floor().long().clamp(max=available)
    wanted[int(shares.argmax())] = max(1, int(wanted[int(shares.argmax())]))
    pairs = zip(values, wanted, strict=True)
    chosen = torch.cat([order[test.y[order] == value][: int(n)] for value, n in pairs])
    return test.take(chosen[torch.randperm(len(chosen), generator=generator)])


def _client(
    i: int, held: Held, transforms: Sequence[tuple[str, Transform]], config: FederationConfig
) -> ClientData:
    """Apply the group's transform and keep validation examples."""
    train, test, validation, note = held.train, held.test, held.validation, held.train.name
    if transforms and held.group is not None:
        note, change = transforms[held.group]
        train, test = change(train), change(test)
        validation = None if validation is None else change(validation)
    fraction = config.data.validation_fraction
    if validation is None and fraction > 0 and len(Units.of(train, train.y)) >= 2:
        generator = generator_of(config.seed, "validation", i)
        train, validation = hold_out(train, fraction, strata(train, config), generator)
    if validation is None:
        validation = train.take(torch.zeros(len(train), dtype=torch.bool))
    least = config.partition.min_examples
    who = said_in_errors(i, held.name or str(i))
    if len(train) < least:
        remedy = "use fewer clients, less validation and test data, or lower partition.min_examples"
        problem = f"{who} would train on too few examples"
        raise PartitionError(problem, field="partition.min_examples", value=least, remedy=remedy)
    if not len(validation) and config.pools.enabled and config.pools.select_on == "validation":
        remedy = 'give every client validation examples, or set pools.select_on = "train"'
        problem = f"{who} has no validation examples to choose a pool by"
        raise PartitionError(problem, field="pools.select_on", value="validation", remedy=remedy)
    name = str(i) if held.name is None else held.name
    return ClientData(i, train, validation, test, held.group, note, name)


def _labelled(client: ClientData, clients: int, config: FederationConfig) -> ClientData:
    """The last clients join without labels, as `data.labelled_clients` says; test labels stay: they
    only measure.
    """
    if client.id < round(config.data.labelled_clients * clients):
        return client
    return replace(
        client,
        train=client.train.unlabelled(),
        validation=client.validation.unlabelled(),
        note=f"{client.note}, unlabelled",
    )
