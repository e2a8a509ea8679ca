"""How clients differ: who holds which examples, and what is done to them.

Every partition is a function of the data, the configuration and the seed. A client's test set is drawn from the held-out split
with the client's own label shares and put through the client's own transform, so each client is tested on its own law.

With differential privacy nothing is held out or drawn by labels, since who is in a test or validation set would then show them: test
and validation sets are random, by coins of their own, and tell a client's law from others' by its transform alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from secure_fl.config import FederationConfig, PartitionConfig
from secure_fl.data.dataset import UNLABELLED, Dataset, Splits, join
from secure_fl.data.transforms import Transform, transforms_for
from secure_fl.errors import DataError, PartitionError
from secure_fl.seeds import derive_seed

_DIRICHLET_DRAWS = 100


@dataclass(frozen=True)
class ClientData:
    """One client's examples.

    Attributes:
        id: position in the roster.
        train, validation, test: `validation` has no examples when none are kept.
        group: which of the partition's known groups the client is in, or None. For measurement only.
        note: what was done to its data, in words.
    """

    id: int
    train: Dataset
    validation: Dataset
    test: Dataset
    group: int | None
    note: str

    def __repr__(self) -> str:
        return f"ClientData({self.id}, {self.train!r}, group={self.group})"


def partition(sources: Sequence[Splits], config: FederationConfig) -> list[ClientData]:
    """Deal the examples of all sources out to clients.

    Raises:
        PartitionError: more clients than examples, a client below `partition.min_examples`, labels or client column missing.
    """
    spec, seed = config.partition, config.seed
    if spec.kind == "source":
        held = _by_source(sources, config)
    else:
        train = join(_distinct_owners([split for split, _ in sources]), "+".join(split.name for split, _ in sources))
        held = _deal(train, _official_test(sources), config, spec.clients, derive_seed(seed, "partition"))
    transforms = transforms_for(spec, held[0][0], seed)
    labelled = round(config.data.labelled_clients * len(held))
    clients = [_client(i, part, transforms, config) for i, part in enumerate(held)]
    return clients[:labelled] + [_without_labels(client) for client in clients[labelled:]]


def count_classes(clients: Sequence[ClientData], config: FederationConfig) -> int:
    """Number of classes that models and sketches are made for; 0 without labels, or where nothing is made for it.

    Raises:
        DataError: labels are private, and the number was read off them.
    """
    if not any(client.train.labelled for client in clients):
        return 0
    if not _private(config) or all(client.train.declared for client in clients):
        return max(client.test.classes for client in clients)
    if config.needs_classes:
        remedy = "set data.classes, or pass Dataset.from_arrays(..., classes=...)"
        raise DataError("read off private labels, and every model would show it", field="data.classes", value=None, remedy=remedy)
    return 0


Held = tuple[Dataset, Dataset, int | None]
"""Training examples, test examples and known group of one client, before its transform."""


def _by_source(sources: Sequence[Splits], config: FederationConfig) -> list[Held]:
    """Client i holds examples of source i modulo the number of sources."""
    clients, count = config.partition.clients, len(sources)
    if count < 2:
        raise PartitionError(
            "a partition by source needs several sources", field="data.sources", value=count, remedy="add a second [[data.sources]] table"
        )
    if clients < count:
        raise PartitionError(
            f"{count} sources need at least as many clients", field="partition.clients", value=clients, remedy=f"set it to {count} or more"
        )
    dealt = []
    for number, (train, test) in enumerate(sources):
        share = len(range(number, clients, count))
        dealt.append(_deal(train, test, config, share, derive_seed(config.seed, "partition", number)))
    return [(*dealt[i % count][i // count][:2], i % count) for i in range(clients)]


def _deal(train: Dataset, test: Dataset | None, config: FederationConfig, clients: int, seed: int) -> list[Held]:
    """Hold out a test split where there is none, then split both among `clients`."""
    spec, generator = config.partition, torch.Generator().manual_seed(seed)
    if spec.kind == "natural":
        return _natural(train, config, seed)
    if test is None:
        train, test = _hold_out(train, config.data.test_fraction, _strata(train, config), generator)
    if clients > len(train):
        remedy = "use fewer clients or more examples"
        raise PartitionError("more clients than training examples", field="partition.clients", value=clients, remedy=remedy)
    owned = _SPLITTERS[spec.kind](train, spec, clients, generator)
    if min(len(index) for index in owned) < spec.min_examples:
        remedy = "use fewer clients, a larger partition.concentration, or a smaller partition.min_examples"
        raise PartitionError("a client would hold fewer examples", field="partition.min_examples", value=spec.min_examples, remedy=remedy)
    grouped = spec.kind in ("rotation", "label_permutation")
    held = []
    for i, index in enumerate(owned):
        mine = train.take(index)
        tested = _at_random(test, config, derive_seed(seed, "test", i)) if _private(config) else _like(mine, test, config.data.test_limit, generator)
        held.append((mine, tested, i % spec.groups if grouped else None))
    return held


def _natural(data: Dataset, config: FederationConfig, seed: int) -> list[Held]:
    """Each client's own examples, its test split held out of them by coins that no other client's number of examples moves."""
    if data.client is None:
        remedy = "add an integer array `client` to the file, or choose another partition.kind"
        raise PartitionError("no client column", field="partition.kind", value="natural", remedy=remedy)
    held: list[Held] = []
    for i, owner in enumerate(data.client.unique().tolist()):
        mine = replace(data.take(torch.nonzero(data.client == owner).flatten()), name=f"client {owner}")
        least = config.partition.min_examples
        if len(mine) <= least:
            remedy = "drop the client, or lower partition.min_examples"
            raise PartitionError(
                f"client {i} holds too few examples to train and test on", field="partition.min_examples", value=least, remedy=remedy
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "held out", i))
        train, test = _hold_out(mine, config.data.test_fraction, _strata(mine, config), generator)
        held.append((train, test.take(torch.arange(min(len(test), config.data.test_limit))), None))
    return held


def _distinct_owners(parts: Sequence[Dataset]) -> list[Dataset]:
    """Client numbers of several files made distinct: equal numbers in two files are different clients."""
    if len(parts) == 1:
        return list(parts)
    made, first = [], 0
    for part in parts:
        if part.client is None:
            made.append(part)
            continue
        owners = part.client - part.client.min() + first
        first = int(owners.max()) + 1
        made.append(replace(part, client=owners))
    return made


def _iid(train: Dataset, _spec: PartitionConfig, clients: int, generator: Generator) -> list[Tensor]:
    return list(torch.randperm(len(train), generator=generator).tensor_split(clients))


def _dirichlet(train: Dataset, spec: PartitionConfig, clients: int, generator: Generator) -> list[Tensor]:
    """Each class is split by its own Dirichlet draw, as in SSD; redrawn while a client is below the minimum."""
    _need_labels(train, spec)
    gamma = torch.full((clients,), spec.concentration, dtype=torch.float64)
    best: list[Tensor] = []
    for _ in range(_DIRICHLET_DRAWS):
        parts: list[list[Tensor]] = [[] for _ in range(clients)]
        for label in range(train.classes):
            members = torch.nonzero(train.y == label).flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            shares = torch._standard_gamma(gamma, generator=generator).clamp_min(1e-300)
            cuts = ((shares / shares.sum()).cumsum(0)[:-1] * len(members)).long()
            for mine, piece in zip(parts, members.tensor_split(cuts), strict=True):
                mine.append(piece)
        owned = [torch.cat(mine) for mine in parts]
        if not best or min(map(len, owned)) > min(map(len, best)):
            best = owned
        if min(map(len, best)) >= spec.min_examples:
            break
    return best


def _shards(train: Dataset, spec: PartitionConfig, clients: int, generator: Generator) -> list[Tensor]:
    """Examples sorted by label, cut into equal shards, each client dealt `shards_per_client` of them."""
    _need_labels(train, spec)
    shuffled = torch.randperm(len(train), generator=generator)
    in_order = shuffled[train.y[shuffled].argsort(stable=True)]
    shards = in_order.tensor_split(clients * spec.shards_per_client)
    deal = torch.randperm(len(shards), generator=generator).reshape(clients, -1)
    return [torch.cat([shards[int(j)] for j in row]) for row in deal]


_SPLITTERS: dict[str, Callable[[Dataset, PartitionConfig, int, Generator], list[Tensor]]] = {
    "iid": _iid,
    "rotation": _iid,
    "label_permutation": _iid,
    "source": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
}


def _need_labels(train: Dataset, spec: PartitionConfig) -> None:
    if not bool((train.y != UNLABELLED).all()):
        remedy = 'label every example, or use partition.kind = "iid"'
        raise PartitionError("deals examples out by label, and some have none", field="partition.kind", value=spec.kind, remedy=remedy)


def _official_test(sources: Sequence[Splits]) -> Dataset | None:
    """The sources' test splits together; one source without a split means holding out of all."""
    tests = [test for _, test in sources if test is not None]
    return join(tests, "test") if len(tests) == len(sources) else None


def _hold_out(data: Dataset, fraction: float, strata: Tensor, generator: Generator) -> tuple[Dataset, Dataset]:
    """(kept, held out): about `fraction` of every stratum, at least one example in each part."""
    order = torch.randperm(len(data), generator=generator)
    position = torch.empty(len(data), dtype=torch.float64)
    for stratum in strata.unique():
        members = order[strata[order] == stratum]
        position[members] = (torch.arange(len(members), dtype=torch.float64) + torch.rand(1, generator=generator)) / len(members)
    ranked = position.argsort(stable=True)
    count = min(max(1, round(fraction * len(data))), len(data) - 1)
    return data.take(ranked[count:].sort().values), data.take(ranked[:count])


def _private(config: FederationConfig) -> bool:
    return config.privacy.unit != "none"


def _strata(data: Dataset, config: FederationConfig) -> Tensor:
    """What a part is held out by: the labels, unless they are private; then all examples are alike."""
    return torch.zeros_like(data.y) if _private(config) else data.y


def _at_random(test: Dataset, config: FederationConfig, seed: int) -> Dataset:
    """At most `data.test_limit` test examples. Coins of their own: how many the dealing has used up depends on training labels."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    return test.take(order[: config.data.test_limit])


def _like(mine: Dataset, test: Dataset, limit: int, generator: Generator) -> Dataset:
    """Test examples in the label shares of `mine`, at most `limit`; as many as the scarcest label allows."""
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
    ranks = [order[test.y[order] == value][: int(n)] for value, n in zip(values, wanted, strict=True)]
    chosen = torch.cat(ranks)
    return test.take(chosen[torch.randperm(len(chosen), generator=generator)])


def _client(i: int, held: Held, transforms: Sequence[tuple[str, Transform]], config: FederationConfig) -> ClientData:
    """Apply the group's transform and keep validation examples."""
    train, test, group = held
    note = train.name
    if transforms and group is not None:
        note, change = transforms[group]
        train, test = change(train), change(test)
    validation = train.take(torch.tensor([], dtype=torch.long))
    fraction = config.data.validation_fraction
    if fraction > 0 and len(train) >= 2:
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "validation", i))
        train, validation = _hold_out(train, fraction, _strata(train, config), generator)
    least = config.partition.min_examples
    if len(train) < least:
        remedy = "use fewer clients, less validation and test data, or lower partition.min_examples"
        raise PartitionError(f"client {i} would train on too few examples", field="partition.min_examples", value=least, remedy=remedy)
    return ClientData(i, train, validation, test, group, note)


def _without_labels(client: ClientData) -> ClientData:
    """Test labels stay: they only measure."""
    note = f"{client.note}, unlabelled"
    return replace(client, train=client.train.unlabelled(), validation=client.validation.unlabelled(), note=note)
