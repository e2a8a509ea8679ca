"""The examples that private encoders are compared on: sixteen clients with skewed labels, in groups
that differ.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bench.harness import ROOT
from bench.private_encoders_cells import UPRIGHT_VIEWS
from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.augmentations import GlyphViews, KeyedAugmentation, SeriesViews, TableViews
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources import load_source
from secure_fl.seeds import derive_seed

CLIENTS, GROUPS, CONCENTRATION = 16, 4, 0.1
"""Image clients are turned by their number modulo four, in quarters; each test image by chance."""
_VIEWS = GlyphViews(crop_scale=(0.6, 1.0), turn=180.0)


@dataclass(frozen=True)
class Split:
    """What one seed draws.

    Attributes:
        train, test: all clients' examples together, turned already.
        augment: makes views.
        own: the client of each training example, int64 `[N]`; empty where there are no clients.
    """

    train: Dataset
    test: Dataset
    augment: KeyedAugmentation = field(repr=False)
    own: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self.train.x.shape[1:])


@lru_cache(maxsize=1)
def split(name: str, seed: int) -> Split:
    """The examples of a set, dealt out and turned by a seed; the same with any views."""
    return SETS[name](derive_seed(seed, "private-encoders", name.partition(",")[0]))


def _images(
    source: str, examples: int, tested: int, views: KeyedAugmentation = _VIEWS
) -> Callable[[int], Split]:
    def draw(seed: int) -> Split:
        whole, apart = load_source(SourceConfig(name=source), DataConfig(), 0)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(whole), generator=generator)
        train = whole.take(order[:examples])
        test = whole.take(order[examples:]) if apart is None else apart
        test = test.take(torch.randperm(len(test), generator=generator)[:tested])
        own = equal_shares(train.y, train.classes, np.random.default_rng(seed))
        by_chance = torch.randint(0, GROUPS, (len(test),), generator=generator)
        return Split(_turned(train, own % GROUPS), _turned(test, by_chance), views, own)

    return draw


def equal_shares(y: Tensor, classes: int, rng: np.random.Generator) -> Tensor:
    """The client of each example, int64 `[N]`: as many at each, labels by the client's own
    Dirichlet draw for as long as there are any of them.

    Splitting each class among clients instead would leave many a class to a single client, and so
    to a single turn.
    """
    wanted = rng.dirichlet([CONCENTRATION] * classes, CLIENTS)
    left = [list(rng.permutation(np.flatnonzero(y.numpy() == label))) for label in range(classes)]
    own = torch.empty(len(y), dtype=torch.long)
    for client in rng.permutation(np.arange(len(y)) % CLIENTS):
        stock = np.array([len(members) for members in left])
        shares = wanted[client] * (stock > 0)
        shares = shares if shares.sum() > 0 else stock
        label = rng.choice(classes, p=shares / shares.sum())
        own[int(left[label].pop())] = int(client)
    return own


def _turned(data: Dataset, quarters_N: Tensor) -> Dataset:
    x = data.x.clone()
    for quarters in range(GROUPS):
        x[quarters_N == quarters] = x[quarters_N == quarters].rot90(quarters, (2, 3))
    return Dataset.from_arrays(x.numpy(), data.y.numpy(), classes=data.classes, name=data.name)


def _columns(seed: int) -> Split:
    """Digits of 8 × 8 as a table of 64 columns, standardised."""
    whole, _ = load_source(SourceConfig(name="digits"), DataConfig(), 0)
    x = whole.x.flatten(1)
    x = (x - x.mean(0)) / x.std(0).clamp_min(0.1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = (_data(x[part], whole.y[part], 10) for part in (order[:1400], order[1400:]))
    return Split(train, test, TableViews())


def _series(seed: int) -> Split:
    """The vibrations of `examples/make_series.py`, of machines at two speeds."""
    one = runpy.run_path(str(ROOT / "examples" / "make_series.py"))["series"]
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 5000)
    made = [one(kind, (1.0, 1.8)[number % 2], rng) for number, kind in enumerate(y)]
    x = torch.from_numpy(np.stack(made)).float()
    x = x / x.std((0, 2), keepdim=True)
    labels = torch.from_numpy(y)
    train, test = (_data(x[part], labels[part], 3) for part in (slice(4000), slice(4000, None)))
    return Split(train, test, SeriesViews())


def _data(x: Tensor, y: Tensor, classes: int) -> Dataset:
    return Dataset.from_arrays(x.numpy(), y.numpy(), classes=classes, name="bench")


SETS: dict[str, Callable[[int], Split]] = {
    "Fashion-MNIST": _images("fashion_mnist", 10_000, 3000),
    "MNIST-5k": _images("mnist5k", 4000, 1000),
    UPRIGHT_VIEWS: _images("fashion_mnist", 10_000, 3000, GlyphViews()),
    "digits as columns": _columns,
    "series": _series,
}
"""10,000 / 3,000, 4,000 / 1,000, 1,400 / 397 and 4,000 / 1,000 examples to train and test on."""
