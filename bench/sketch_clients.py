"""Clients to find groups among: twelve of equal size, dealt and changed, as short vectors.

Everything is a function of the scenario and the draw. A set's vectors are made once for each group
and kind, and all draws take theirs from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench import made_up
from secure_fl.config import FederationConfig
from secure_fl.data.sources import load_sources
from secure_fl.federation.factory.sketch_vectors import fixed_vectors
from secure_fl.models import build_encoder
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed

CLIENTS, GROUPS = 12, 4
SKEW = 0.1
"""Of the Dirichlet draw that a client's label shares are."""
_EXAMPLES = 6000
Client = tuple[Tensor, Tensor, int]
"""Vectors `[N, F]`, labels `[N]`, true group."""


@dataclass(frozen=True)
class Scenario:
    """What sets clients apart: the data, what groups are, and whether labels are skewed."""

    data: str
    groups: str
    skewed: bool = False

    @property
    def count(self) -> int:
        """Number of groups."""
        return 2 if self.groups == "source" else GROUPS


SCENARIOS = (
    *(Scenario(data, "rotation") for data in ("digits", "mnist5k", "fashion_mnist", "pictures")),
    *(Scenario(data, "rotation", True) for data in ("mnist5k", "fashion_mnist", "pictures")),
    *(Scenario(data, "permutation") for data in ("digits", "mnist5k", "fashion_mnist", "waves")),
    *(Scenario("mnist5k", "source", skewed) for skewed in (False, True)),
    *(Scenario("waves", "sensor", skewed) for skewed in (False, True)),
)
CHOSEN_ON = ("digits", "mnist5k", "waves")
"""Sets that the rule of `auto` was chosen on; the others say whether it holds elsewhere."""


@cache
def examples(data: str) -> tuple[Tensor, Tensor]:
    """A set's examples and labels, in an order of their own."""
    if data in ("pictures", "waves"):
        made = made_up.pictures if data == "pictures" else made_up.waves
        return made(_EXAMPLES)
    limit = {} if data == "digits" else {"limit": _EXAMPLES}
    config = FederationConfig(data={"sources": ({"name": data, **limit},)})
    train, _ = load_sources(config.data, 0)[0]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train.x[order], train.y[order]


@cache
def vectors(data: str, kind: str, group: int) -> Tensor:
    """All examples of a set as a group has them, in one kind of vector."""
    x, _ = examples(data)
    x = made_up.changed(x, group) if x.ndim == 3 else torch.rot90(x, group, (2, 3)).contiguous()
    if kind != "encoder":
        return fixed_vectors(kind, x).float()  # type: ignore[arg-type]
    config = FederationConfig()
    encoder = build_encoder(config.model, tuple(x.shape[1:]), 0)
    return embed(encoder, x, Compute.of(config.runtime)).float()


@cache
def classes(data: str) -> int:
    """Number of labels."""
    return int(examples(data)[1].max()) + 1


def clients(scenario: Scenario, kind: str, size: int, draw: int) -> list[Client]:
    """Twelve clients of `size` examples each; client i is in group i modulo their number."""
    found = list[Client]()
    for i, (name, rows) in enumerate(_owned(scenario, size, draw)):
        group = i % scenario.count
        moved = group if scenario.groups in ("rotation", "sensor") else 0
        labels = examples(name)[1][rows]
        if scenario.groups == "permutation":
            order = np.random.default_rng((draw, group)).permutation(classes(name))
            labels = torch.from_numpy(order)[labels]
        found.append((vectors(name, kind, moved)[rows], labels, group))
    return found


@cache
def _owned(scenario: Scenario, size: int, draw: int) -> list[tuple[str, Tensor]]:
    """Each client's set and its rows there."""
    rng, names = np.random.default_rng(draw), [scenario.data] * CLIENTS
    if scenario.groups == "source":
        names = [("mnist5k", "fashion_mnist")[i % 2] for i in range(CLIENTS)]
    dealt = {
        name: iter(_dealt(examples(name)[1], names.count(name), size, scenario.skewed, rng))
        for name in sorted(set(names))
    }
    return [(name, next(dealt[name])) for name in names]


def _dealt(
    labels: Tensor, count: int, size: int, skewed: bool, rng: np.random.Generator
) -> list[Tensor]:
    """Rows of each client, one example at a time to a client whose turn it is, as long as stocks
    last; with skew each takes by label shares of its own.
    """
    number = int(labels.max()) + 1
    stock = [list(rng.permutation(np.flatnonzero(labels.numpy() == y))) for y in range(number)]
    shares = rng.dirichlet([SKEW] * number, count) if skewed else np.ones((count, number))
    owned: list[list[int]] = [[] for _ in range(count)]
    for i in rng.permutation(np.repeat(np.arange(count), size)).tolist():
        wanted = shares[i] * np.array([bool(left) for left in stock])
        if wanted.sum() < 1e-9:
            wanted = np.array([float(len(left)) for left in stock])
        owned[i].append(stock[rng.choice(number, p=wanted / wanted.sum())].pop())
    return [torch.tensor(rows) for rows in owned]
