"""What view moments are like on examples that nobody owns: it stands in for what noise hides."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secure_fl.coins import Coins
from secure_fl.data.synthetic import synthetic_examples
from secure_fl.data.views import Augmentation, own_views
from secure_fl.privacy.view_moments import ViewMoments

_EXAMPLES, _BATCH = 1000, 100


def synthetic_moments(
    shape: tuple[int, ...], features: nn.Module, augment: Augmentation, moments: ViewMoments
) -> Tensor:
    """The mean of W_i / clip over synthetic examples of a shape, float64 `[F, F]`, about their own
    centre.

    **Guarantee**: no example of anybody's enters.

    **Assumes**: appliers of one federation that compare their results draw the same views to the
    last bits, as one build of torch does. Beyond that, an example's matrix is cut to whole numbers
    in double precision: another order of summation moves it only where a field is that close to a
    whole number, and the sum of whole numbers not at all.

    Args:
        features: the map, `[N, *shape]` -> unit rows `[N, F]`; it is used in double precision.
        augment: makes the run's views.
        moments: the run's, of which widths, views and clip are taken.
    """
    form = moments.features, moments.views, moments.clip, False
    bare, features = ViewMoments.without_noise(*form, roster=1), features.double()
    x, coins = synthetic_examples(shape, _EXAMPLES).double(), Coins.public(0)
    device = next((each.device for each in features.buffers()), torch.device("cpu"))
    with torch.no_grad():
        rows = (features(each.to(device)).cpu() for each in x.split(_BATCH))
        centre = bare.centre.opened(bare.sum_features(rows, _EXAMPLES), 1).mean
        views = (
            torch.stack(own_views(augment, x[index], coins.at(0, index), moments.views), dim=1)
            for index in torch.arange(_EXAMPLES).split(_BATCH)
        )
        of_views = (
            features(each.flatten(0, 1).to(device)).cpu().unflatten(0, each.shape[:2])
            for each in views
        )
        total = bare.sum_moments(of_views, centre, _EXAMPLES)
    return bare.opened_moments(total, 1).within
