"""What a model is trained for: a label, or the agreement of two views. Both can be fitted
and scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.coins import Coins, Draws
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import Augmentation, batch_views
from secure_fl.models.heads import Classifier, EncoderProjector
from secure_fl.objectives.objective import Objective, TwoViews
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.fit import FitReport, LocalSpec, epochs, fit

SCORE_BATCH = 512
"""Examples that are scored or embedded at once."""


@dataclass(frozen=True)
class Score:
    """Mean loss, and accuracies where there are labels.

    Attributes:
        loss: mean over the labelled examples, or of an objective over batches.
        accuracy: share of the labelled examples that are told right.
        entropy: of the predictions, in nats.
        balanced_accuracy: mean over the classes present of the share told right: a class counts
            alike however rare it is.
        losses: of each example (self-supervised: of each batch), `[N]`.
        errors: 1 where a labelled example is told wrong, else 0, `[N]`.
    """

    loss: float
    accuracy: float | None = None
    entropy: float | None = None
    balanced_accuracy: float | None = None
    losses: Tensor | None = field(default=None, repr=False, compare=False)
    errors: Tensor | None = field(default=None, repr=False, compare=False)


class Task(Protocol):
    """Fit a model on a client's examples, or score it there."""

    def fit(self, model: nn.Module, data: Dataset, spec: LocalSpec, seed: int) -> FitReport: ...

    def score(self, model: nn.Module, data: Dataset, seed: int) -> Score: ...


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy on the labelled examples. With `frozen`, the encoder stays in eval mode and is
    not trained.
    """

    compute: Compute
    frozen: bool = False

    def fit(self, model: nn.Module, data: Dataset, spec: LocalSpec, seed: int) -> FitReport:
        data = data.with_labels()
        x, y = data.x.to(self.compute.device), data.y.to(self.compute.device)
        train_mode(model, self.frozen)

        def terms_of(index: Tensor) -> dict[str, Tensor]:
            logits = model(x[index.to(x.device)])
            return {
                "cross_entropy": functional.cross_entropy(logits.float(), y[index.to(y.device)])
            }

        with _seeded(seed, self.compute):
            return fit(
                model,
                epochs(len(data), spec, seed, whole=False),
                terms_of,
                {"cross_entropy": 1.0},
                spec,
                self.compute,
            )

    def score(self, model: nn.Module, data: Dataset, seed: int) -> Score:
        """Loss and accuracy over the labelled examples; over all, when none is labelled, only the
        predictions' entropy.
        """
        labelled = data.labelled
        data = data.with_labels() if labelled else data
        model.eval()
        with torch.no_grad(), self.compute.autocast():
            logits = torch.cat(
                [model(x.to(self.compute.device)).float().cpu() for x in data.x.split(SCORE_BATCH)]
            )
        log_p = functional.log_softmax(logits, 1)
        entropy = float(-(log_p.exp() * log_p).sum(1).mean())
        if not labelled:
            return Score(float("nan"), None, entropy)
        losses, right = (
            functional.nll_loss(log_p, data.y, reduction="none"),
            (logits.argmax(1) == data.y).double(),
        )
        recalls = torch.stack([right[data.y == label].mean() for label in data.y.unique()])
        return Score(
            float(losses.mean()),
            float(right.mean()),
            entropy,
            float(recalls.mean()),
            losses,
            1 - right,
        )


@dataclass(frozen=True)
class SelfSupervised:
    """A self-supervised objective on two views."""

    objective: Objective
    augment: Augmentation
    compute: Compute
    frozen: bool = False

    def fit(self, model: nn.Module, data: Dataset, spec: LocalSpec, seed: int) -> FitReport:
        train_mode(model, self.frozen)
        steps, coins = count(), Coins.public(derive_seed(seed, "views"))

        def terms_of(index: Tensor) -> dict[str, Tensor]:
            return self._terms(model, data.x[index], coins.at(next(steps), index))

        weights: Mapping[str, float] = self.objective.weights
        with _seeded(seed, self.compute):
            return fit(
                model,
                epochs(len(data), spec, seed, whole=True),
                terms_of,
                weights,
                spec,
                self.compute,
            )

    def score(self, model: nn.Module, data: Dataset, seed: int) -> Score:
        """Mean objective over batches of the same views for one seed, so that models can be
        compared; NaN below two examples.
        """
        model.eval()
        losses, coins = list[float](), Coins.public(derive_seed(seed, "views"))
        with torch.no_grad(), self.compute.autocast():
            for index in torch.arange(len(data)).split(SCORE_BATCH):
                if len(index) < 2:
                    continue
                terms = self._terms(model, data.x[index], coins.at(0, index))
                losses.append(
                    sum(self.objective.weights[name] * float(term) for name, term in terms.items())
                )
        return Score(
            sum(losses) / len(losses) if losses else float("nan"), losses=torch.tensor(losses)
        )

    def _terms(self, model: nn.Module, x: Tensor, draws: Draws) -> dict[str, Tensor]:
        batch = TwoViews(*batch_views(self.augment, x.to(self.compute.device), draws))
        return self.objective.terms(batch, model)


@contextmanager
def _seeded(seed: int, compute: Compute) -> Iterator[None]:
    """Dropout and the like follow `seed`; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[compute.device] if compute.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train_mode(model: nn.Module, frozen: bool) -> None:
    """Train mode; a frozen encoder keeps its batch statistics and its weights."""
    model.train()
    if frozen and isinstance(model, Classifier | EncoderProjector):
        model.encoder.eval().requires_grad_(False)


def embed(encoder: nn.Module, x: Tensor, compute: Compute) -> Tensor:
    """Features `[N, F]` of un-augmented examples, float32 on the processor, in eval mode."""
    encoder.eval()
    with torch.no_grad(), compute.autocast():
        return torch.cat(
            [encoder(part.to(compute.device)).float().cpu() for part in x.split(SCORE_BATCH)]
        )
