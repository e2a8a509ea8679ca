"""What the training loop asks of a self-supervised objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from secure_fl.errors import TrainingError
from secure_fl.objectives.coupling import Coupling


class TwoViews(NamedTuple):
    """Two augmentations of one batch, `[N, ...]` each, row by row the same examples."""

    first: Tensor
    second: Tensor

    def __repr__(self) -> str:
        return f"TwoViews(rows of shape {tuple(self.first.shape[1:])})"


class TwoViewModel(Protocol):
    """An encoder with a projector: `x` -> (`h` `[N, F]`, `z` `[N, D]`)."""

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]: ...


class Objective(Protocol):
    """A weighted sum of named terms, each declaring how it couples examples."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each term; a term of weight 0 is not computed."""

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        """Coupling of each term."""

    @property
    def coupling(self) -> Coupling:
        """The widest of them."""
        return max(self.couplings.values(), default=Coupling.PER_EXAMPLE)

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        """The terms, unweighted, each a scalar."""


def total_loss(weights: Mapping[str, float], terms: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum.

    Raises:
        TrainingError: it is not finite; names the terms that are not.
    """
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    if not bool(torch.isfinite(total)):
        values = {
            name: term.item() for name, term in terms.items() if not bool(torch.isfinite(term))
        }
        remedy = "lower the learning rate, or look for extreme values in the data"
        raise TrainingError("the loss is not finite", field="loss", value=values, remedy=remedy)
    return total
