"""View moments of a split, kept on disk; the noise of every way to release them; the encoders that
are made of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from math import inf, sqrt
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.private_encoders_sets import CLIENTS, split
from secure_fl.coins import Coins
from secure_fl.data.views import own_views
from secure_fl.federation.factory.moment_prior import synthetic_moments
from secure_fl.federation.policy.installed import code_digest
from secure_fl.models import whitening as exact
from secure_fl.models.view_features import ViewFeatures
from secure_fl.models.whitening import fisher, whitening
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_for, noise_of_run
from secure_fl.privacy.example_sums import Shares
from secure_fl.privacy.view_moments import ViewMoments
from secure_fl.seeds import derive_seed

DELTA = 1e-5
FEATURES, VIEWS, CLIP, CENTRE_SHARE = 512, 8, 0.1, 0.02
BANK = 4000
"""Training examples that probes and neighbours read."""
SURVIVORS = 12
"""Fewest clients of the sixteen whose sum is opened; one of them may collude."""
_SHARES = Shares(CLIENTS, SURVIVORS, 1)
_BATCH = 256


@dataclass(frozen=True)
class Level:
    """A budget and who adds the noise.

    Attributes:
        epsilon: infinity for none.
        placed: `sum` (shares of noise under the secure sum), `client` (each client's own sum is
            noised enough by itself) or `curator` (who holds all examples).
    """

    epsilon: float
    placed: str

    @property
    def deviation(self) -> float:
        """Of the noise in a field of the sum, in bounds of an example, if all clients answer."""
        return _multiplier(self) / sqrt(1 - CENTRE_SHARE) if self.epsilon < inf else 0.0


@lru_cache
def _multiplier(level: Level) -> float:
    if level.placed != "sum":
        one = noise_for(level.epsilon, DELTA, Adjacency.ZERO_OUT, sampling_rate=1, steps=1)
        return one * (sqrt(CLIENTS) if level.placed == "client" else 1.0)
    noise = noise_of_run(
        lambda noise: bare(noise).events(),
        level.epsilon,
        DELTA,
        Adjacency.ZERO_OUT,
        remedy="more clients",
    )
    return noise * sqrt(CLIENTS / _SHARES.honest)


def bare(noise: float | None = None) -> ViewMoments:
    """The mechanism of the runs, with its noise multiplier or without noise."""
    form = FEATURES, VIEWS, CLIP, True
    if noise is None:
        return ViewMoments.without_noise(*form, roster=1)
    return ViewMoments.noised(*form, _SHARES, noise, CENTRE_SHARE)


@dataclass(frozen=True)
class Measured:
    """What a split's features say without noise on the moments.

    Attributes:
        bank, test: centred unit features of training and of test examples, `[N, F]`.
        within, between: means of W_i / clip and of B_i, float64 `[F, F]`.
        examples: summed.
        seconds: of one processor core for views, features, centre and moments.
    """

    bank: Tensor
    test: Tensor
    within: Tensor
    between: Tensor
    examples: int
    seconds: float


@lru_cache(maxsize=1)
def measured(name: str, seed: int) -> Measured:
    """Computed once and kept on disk: the moments of a split are the same at every level.

    The centre is that of ε = 1 under the secure sum, also where the moments carry less noise.
    """
    place = _place(f"{name}-{seed}")
    if place.exists():
        return Measured(**torch.load(place, weights_only=True))
    drawn, began = split(name, seed), time.process_time()
    features, mechanism, x = ViewFeatures(drawn.shape, FEATURES), bare(), drawn.train.x
    with torch.no_grad():
        rows = torch.cat([features(part) for part in x.split(_BATCH)])
        sums = mechanism.centre.opened(mechanism.sum_features(iter([rows]), len(x)), 1).mean
        noise = _multiplier(Level(1.0, "sum")) / sqrt(CENTRE_SHARE) / len(x)
        generator = torch.Generator().manual_seed(derive_seed(seed, "centre"))
        centre = sums + noise * torch.randn(FEATURES, generator=generator, dtype=torch.float64)
        within, between = means(_views(name, seed, features), centre)
        seconds = time.process_time() - began
        bank, test = (
            functional.normalize(part - centre.float(), dim=1)
            for part in (rows[:BANK], features(drawn.test.x))
        )
    found = Measured(bank, test, within, between, len(x), seconds)
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(vars(found), place)
    return found


def means(batches: Iterable[Tensor], centre_F: Tensor) -> tuple[Tensor, Tensor]:
    """Means of W_i / clip and of B_i over examples, float64 `[F, F]`, of features `[N, V, F]`.

    What `ViewMoments` sums, before each example's matrix is cut to whole numbers: one product a
    batch in place of one an example, and the same to the third digit of a matrix.
    """
    within, between = torch.zeros(2, len(centre_F), len(centre_F), dtype=torch.float64)
    examples = 0
    for views_NVF in batches:
        units = functional.normalize(views_NVF - centre_F.float(), dim=2)
        middle = units.mean(1)
        rows = units - middle[:, None]
        norms = torch.linalg.matrix_norm(rows @ rows.mT) / VIEWS
        scaled = rows * (norms.clamp_min(CLIP) * VIEWS).rsqrt()[:, None, None]
        within += (scaled.flatten(0, 1).T @ scaled.flatten(0, 1)).double()
        between += (middle.T @ middle).double()
        examples += len(units)
    return within / examples, between / examples


def _views(name: str, seed: int, features: ViewFeatures) -> Iterator[Tensor]:
    drawn, coins = split(name, seed), Coins.public(derive_seed(seed, "views"))
    for index in torch.arange(len(drawn.train)).split(_BATCH):
        views = own_views(drawn.augment, drawn.train.x[index], coins.at(0, index), VIEWS)
        stacked = torch.stack(views, dim=1)
        yield features(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])


def _place(name: str) -> Path:
    """Of a file; what other source made is not taken up."""
    folder = f"secure-fl-private-encoders-{code_digest()[:12]}"
    return Path(tempfile.gettempdir()) / folder / f"{name.replace(' ', '-')}.pt"


def prior(name: str) -> Tensor:
    """The synthetic examples' W; the same for all splits of a set, and kept on disk too."""
    place = _place(f"{name}-prior")
    if place.exists():
        kept: Tensor = torch.load(place, weights_only=True)
        return kept
    drawn = split(name, 0)
    made = synthetic_moments(
        drawn.shape, ViewFeatures(drawn.shape, FEATURES), drawn.augment, bare()
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, place)
    return made


def head(name: str, seed: int, level: Level, kind: str, *, beside_prior: bool) -> Tensor:
    """A matrix `[F, F]` of noised moments: `whitening` (W alone is released) or `fisher` (W and B
    in one release, each at half of the budget).
    """
    found = measured(name, seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", kind, str(level)))
    public = prior(name) if beside_prior else None
    deviation = level.deviation / found.examples
    with _lapack():
        if kind == "whitening":
            moment = found.within + _noise(deviation, generator)
            return whitening(moment, deviation, found.examples, public)
        each = deviation * sqrt(2)
        within, between = (part + _noise(each, generator) for part in (found.within, found.between))
        return fisher(within, between, each, each, found.examples, public)


def plain_whitening(moment_FF: Tensor, examples: int) -> Tensor:
    """Of a moment without noise."""
    with _lapack():
        return whitening(moment_FF, 0.0, examples)


def _lapack() -> AbstractContextManager[object]:
    """Eigenvectors and products by LAPACK and BLAS: the same to ten digits or more, but not to the
    last bit, which no judge sees, and seconds a head less.
    """
    fast = {"symmetric_eigen": np.linalg.eigh, "_product": np.matmul}
    return mock.patch.multiple(exact, **fast)


def _noise(deviation: float, generator: torch.Generator) -> Tensor:
    """Symmetric, as of equal noise on an upper triangle whose off-diagonals count √2."""
    drawn = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64) * deviation
    upper = drawn.triu(1) / sqrt(2)
    return upper + upper.T + drawn.diag().diag()
