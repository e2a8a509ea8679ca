"""One client's part of the sums of view moments, without noise: whole numbers of its examples and
of what everybody knows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from secure_fl.coins import Coins
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import own_views
from secure_fl.federation.asks import SumFeatures, SumMoments
from secure_fl.federation.local.workbench import Workbench
from secure_fl.training.tasks import embed

_BATCH = 128
"""Examples whose views are made together: 1,024 images at a time."""


class ClientMoments:
    """What a client adds to either sum.

    **Guarantee**: an example's part follows from that example, its place among the client's and
    public values, whatever examples are beside it.

    **Assumes**: the map treats each row by itself, as the run's does (`models.view_features`).
    """

    def __init__(self, train: Dataset, bench: Workbench, seed: int) -> None:
        """`seed`: of the views' coins, which are no secret."""
        self._train, self._bench, self._seed = train, bench, seed

    def total(self, ask: SumFeatures | SumMoments) -> Tensor:
        """The client's sum, int64 `[fields]`. Raises PrivacyError: as `ViewMoments`."""
        moments, x = self._bench.factory.view_moments, self._train.x
        if isinstance(ask, SumFeatures):
            return moments.sum_features(map(self._features, x.split(_BATCH)), len(x))
        return moments.sum_moments(self._views(x), ask.centre, len(x))

    def _features(self, x: Tensor) -> Tensor:
        return embed(self._bench.view_features, x, self._bench.factory.compute)

    def _views(self, x: Tensor) -> Iterator[Tensor]:
        """Features of every example's views, `[N, V, F]` at a time."""
        factory, coins = self._bench.factory, Coins.public(self._seed)
        for index in torch.arange(len(x)).split(_BATCH):
            draws, count = coins.at(0, index), factory.view_moments.views
            views = torch.stack(own_views(factory.augment, x[index], draws, count), dim=1)
            yield self._features(views.flatten(0, 1)).unflatten(0, views.shape[:2])
