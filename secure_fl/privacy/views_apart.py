"""Whether an example's views are made of that example alone: of a step's own views, and of an
augmentation before anything is released.

**Guarantee**: a refusal names what was seen.

**Assumes**: an augmentation runs on noise as it does on examples.

**Not covered**: one that shows on no noise tried here; examples that a caller has put into an
augmentation beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from secure_fl.coins import Coins, Draws
from secure_fl.data.augmentations import KeyedAugmentation
from secure_fl.data.views import Augmentation, batch_views, two_views
from secure_fl.errors import PrivacyError
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.remembered import changes, remembered, remembers
from secure_fl.privacy.rows_alone import EXTREME, PLAIN

Views = TypeVar("Views")
ViewsOf = Callable[[Tensor, Draws], Views]
"""(int64 `[U, members]` indices, a row of coins each) -> views `[U, R, ...]`, or `Labelled`."""

_STEPS = 12
"""Draws that an augmentation is tried on: one that mixes half the time passes 1 in 4,000."""


@dataclass(frozen=True)
class Examples:
    """Noise in the examples' shape.

    Attributes:
        shape: of one.
        device: where the model is.
        largest: most examples in one batch of the run.
    """

    shape: tuple[int, ...]
    device: torch.device
    largest: int = 64

    def noise(self, count: int, scale: float = 1.0) -> Tensor:
        """`[count, *shape]` within [0, `scale`)."""
        generator = torch.Generator().manual_seed(count)
        return (scale * torch.rand(count, *self.shape, generator=generator)).to(self.device)

    @property
    def sizes(self) -> list[int]:
        """Sizes of batches to try, up to the largest: a branch may begin at any."""
        smaller = {size for size in (7, 17, 33, 65, 129, 257, 513) if size < self.largest}
        return sorted(smaller | {max(2, self.largest)})


def check_views_apart(views_of: ViewsOf[Views], index: Tensor, draws: Draws) -> Views:
    """The views, if the first half's units get the same alone. Raises PrivacyError: they do not."""
    views, half = views_of(index, draws), (len(index) + 1) // 2
    alone = views_of(index[:half], draws[slice(0, half * index.shape[1])])
    for together, apart in zip(_tensors(views), _tensors(alone), strict=True):
        if not _close(together[:half], apart, 1e-5):
            problem = "an example's views depend on the others"
            remedy = "make views of each example by itself, from the coins given: `two_views` does"
            raise PrivacyError(problem, "views_of", "views of a batch", remedy)
    return views


def check_augmentation(augment: Augmentation, examples: Examples) -> None:
    """Refuse an augmentation that puts something of one example into another's view, remembers
    examples, or draws coins that are not given to it.

    A caller's callable runs on one example at a time in private training and could not mix them
    there. One that mixes a batch is refused all the same, since on single examples it would
    silently be another augmentation; and one that takes no batch would fail where it is given one.

    Raises:
        PrivacyError: naming what it does.
    """
    x, coins = examples.noise(5), Coins.public(1)
    ours = type(augment).__module__ == KeyedAugmentation.__module__  # which has tests of its own
    two_views(augment, x, coins.at(0, torch.arange(5)))  # what is made once, and kept, is made here
    held = remembered(augment=augment)
    for step in range(1 if ours else _STEPS):
        draws = coins.at(step, torch.arange(5))
        if step < 2 or isinstance(augment, KeyedAugmentation):
            views, some = two_views(augment, x, draws), torch.tensor([4, 1])
            alone = two_views(augment, x[some.to(x.device)], draws[some])
            _require_own(augment, views, alone, some)
        _check_batch(augment, x, draws)
    if changed := changes(held, remembered(augment=augment)):
        raise remembers(changed[0])


def _check_batch(augment: Augmentation, x: Tensor, draws: Draws) -> None:
    """Rows of a batch under the same coins, with all others replaced."""
    stays = torch.arange(len(x)) % 2 == 0
    if (views := _batch(augment, x, draws)) is None:
        remedy = "return [N, ...] for [N, ...]: without privacy it is given whole batches"
        raise PrivacyError("does not take a batch", "augment", _kind(augment), remedy)
    for change in (*PLAIN.values(), *EXTREME.values()):
        others = torch.where(stays.view(-1, *[1] * (x.ndim - 1)).to(x.device), x, change(x, x[:1]))
        changed = _batch(augment, others, draws)
        if changed is not None:
            kept = [view[stays.to(view.device)] for view in changed]
            _require_own(augment, views, kept, stays.nonzero()[:, 0])


def _batch(augment: Augmentation, x: Tensor, draws: Draws) -> tuple[Tensor, ...] | None:
    """Views of a batch; None where the augmentation refuses what is in it."""
    try:
        return batch_views(augment, x, draws)
    except PrivacyError:
        raise
    except Exception:
        return None


def _require_own(
    augment: Augmentation, views: Sequence[Tensor], alone: Sequence[Tensor], rows: Tensor
) -> None:
    for together, apart in zip(views, alone, strict=True):
        if not _close(together[rows.to(together.device)], apart, 1e-5):
            problem = "an example's view depends on other examples"
            remedy = "change each example by itself, with coins from torch's global generator"
            raise PrivacyError(problem, "augment", _kind(augment), remedy)


def _close(one: Tensor, other: Tensor, share: float) -> bool:
    a, b = one.detach().double(), other.detach().double()
    if a.shape != b.shape:
        return False
    largest = a.where(a.isfinite(), 0.0).abs().max() if a.numel() else 0.0
    return bool((((a - b).abs() <= share * largest) | (a == b) | (a.isnan() & b.isnan())).all())


def rows_of(views: object) -> Tensor:
    """`[U, R, ...]`, without targets."""
    rows = views.rows if isinstance(views, Labelled) else views
    assert isinstance(rows, Tensor)
    return rows


def _tensors(views: object) -> tuple[Tensor, ...]:
    return tuple(views) if isinstance(views, Labelled) else (rows_of(views),)


def _kind(value: object) -> str:
    return type(value).__name__
