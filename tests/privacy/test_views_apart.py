"""Augmentations that tie examples together, remember them or draw coins that are not given to
them are refused on noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kornia import augmentation
from privacy.broken import mixup
from torch import Tensor, nn

from secure_fl.coins import Draws
from secure_fl.data.augmentations import GlyphViews, PhotoViews
from secure_fl.errors import PrivacyError
from secure_fl.privacy.views_apart import Examples, check_augmentation

PHOTOS = Examples((3, 8, 8), torch.device("cpu"))


def cutmix(x: Tensor) -> Tensor:
    return torch.cat([x[..., :4], x[torch.randperm(len(x))][..., 4:]], -1)


class Remembers:
    """The last example is mixed into the next."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        before = x if self.last is None else self.last
        self.last = x[:1].clone()
        return 0.9 * x + 0.1 * before


class Counts:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + 0.1 * torch.randn_like(x)


class Keyed:
    """Takes whole batches, and mixes them."""

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        return x - x.mean(0)


def with_generator() -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda x: x + torch.rand(x.shape, generator=generator)


COUPLED: dict[str, Any] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "now and then": lambda x: mixup(x) if torch.rand(()) < 0.4 else x,
    "centred": lambda x: x - x.mean(0),
    "deviation of the batch": lambda x: x / x.std(correction=0),
    "largest of the batch": lambda x: x / x.abs().max(),
    "sorted": lambda x: x.sort(0)[0],
    "beside NaN": lambda x: 0 * x if bool(x.isnan().any()) else x,
    "remembers": Remembers(),
    "counts": Counts(),
    "keyed": Keyed(),
    "its own generator": with_generator(),
    "numpy": lambda x: x * np.random.rand(),
    "Python": lambda x: x * random.random(),
}


@pytest.mark.parametrize("name", COUPLED)
def test_augmentations_that_tie_examples_together_are_refused(name: str) -> None:
    with pytest.raises(PrivacyError) as caught:
        check_augmentation(COUPLED[name], PHOTOS)
    assert caught.value.field.split(".")[0] == "augment"


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: x,
        lambda x: x + 0.1 * torch.randn_like(x),
        lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
        nn.Sequential(
            augmentation.RandomHorizontalFlip(), augmentation.RandomBrightness((0.8, 1.2))
        ),
        lambda x: x.mul_(torch.rand(len(x), 1, 1, 1)).clamp_(0, 1),
        PhotoViews(),
        GlyphViews(),
        GlyphViews(turn=180.0),
    ],
    ids=["nothing", "noise", "standardised", "kornia", "in place", "photo", "glyph", "turned"],
)
def test_augmentations_of_single_examples_are_let_through(augment: Any) -> None:
    check_augmentation(augment, PHOTOS)


def test_an_augmentation_of_pictures_one_by_one_is_refused_before_it_fails_in_measuring() -> None:
    with pytest.raises(PrivacyError, match="does not take a batch"):
        check_augmentation(lambda x: x.view(PHOTOS.shape).flip(-1)[None], PHOTOS)
