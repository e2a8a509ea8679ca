"""Ways to deal examples out to clients: evenly, by skewed shares of each class, or in shards."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from secure_fl.config import PartitionConfig
from secure_fl.data.dataset import UNLABELLED
from secure_fl.errors import PartitionError

_DIRICHLET_DRAWS = 100


def too_few(spec: PartitionConfig) -> PartitionError:
    """What to raise where a client would hold fewer examples than `partition.min_examples`."""
    problem = "a client would hold fewer examples"
    remedy = "use fewer clients, raise partition.concentration, or lower min_examples"
    return PartitionError(
        problem, field="partition.min_examples", value=spec.min_examples, remedy=remedy
    )


def _iid(labels: Tensor, _: PartitionConfig, clients: int, generator: Generator) -> list[Tensor]:
    return list(torch.randperm(len(labels), generator=generator).tensor_split(clients))


def _dirichlet(
    labels: Tensor, spec: PartitionConfig, clients: int, generator: Generator
) -> list[Tensor]:
    """Each class is split by a Dirichlet draw, as in SSD, until no client is below the minimum."""
    _need_labels(labels, spec)
    for _ in range(_DIRICHLET_DRAWS):
        parts: list[list[Tensor]] = [[] for _ in range(clients)]
        for label in labels.unique():
            members = torch.nonzero(labels == label).flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            shares = _dirichlet_shares(spec.concentration, clients, generator)
            cuts = (shares.cumsum(0)[:-1] * len(members)).round().long()
            for mine, piece in zip(parts, members.tensor_split(cuts), strict=True):
                mine.append(piece)
        owned = [torch.cat(mine) for mine in parts]
        if min(map(len, owned)) >= spec.min_examples:
            return owned
    raise too_few(spec)


def _dirichlet_shares(concentration: float, clients: int, generator: Generator) -> Tensor:
    """One draw, float64 `[clients]`, by logarithms of gammas, which themselves would all be 0 where
    the concentration a is small.

    A gamma of concentration a is one of a + 1 times a uniform number to the power 1/a.
    """
    ahead = torch._standard_gamma(
        torch.full((clients,), concentration + 1, dtype=torch.float64), generator=generator
    )
    uniform = torch.rand(clients, dtype=torch.float64, generator=generator).clamp_min(
        torch.finfo(torch.float64).tiny
    )
    return torch.softmax(ahead.log() + uniform.log() / concentration, 0)


def _shards(
    labels: Tensor, spec: PartitionConfig, clients: int, generator: Generator
) -> list[Tensor]:
    """Examples sorted by label, cut into equal shards, `shards_per_client` dealt to each client."""
    _need_labels(labels, spec)
    shuffled = torch.randperm(len(labels), generator=generator)
    in_order = shuffled[labels[shuffled].argsort(stable=True)]
    shards = in_order.tensor_split(clients * spec.shards_per_client)
    deal = torch.randperm(len(shards), generator=generator).reshape(clients, -1)
    return [torch.cat([shards[int(j)] for j in row]) for row in deal]


SPLITTERS: dict[str, Callable[[Tensor, PartitionConfig, int, Generator], list[Tensor]]] = {
    "iid": _iid,
    "rotation": _iid,
    "label_permutation": _iid,
    "source": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
}
"""Kind of partition -> (labels of the units, settings, clients, coins) -> each client's units."""


def _need_labels(labels: Tensor, spec: PartitionConfig) -> None:
    if not bool((labels != UNLABELLED).all()):
        problem = "deals examples out by label, and some have none"
        remedy = 'label every example, or use partition.kind = "iid"'
        raise PartitionError(problem, field="partition.kind", value=spec.kind, remedy=remedy)
