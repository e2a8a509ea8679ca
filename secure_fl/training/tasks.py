"""What a model is trained for and scored by: a label, or the agreement of two views."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.coins import Coins, Draws
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import Augmentation, batch_views
from secure_fl.models.build import seeded
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
    """Cross-entropy on the labelled examples; a `frozen` encoder stays in eval mode, untrained."""

    compute: Compute
    frozen: bool = False

    def fit(self, model: nn.Module, data: Dataset, spec: LocalSpec, seed: int) -> FitReport:
        data = data.with_labels()
        x, y = data.x.to(self.compute.device), data.y.to(self.compute.device)
        train_mode(model, self.frozen)

        def terms_of(index: Tensor) -> dict[str, Tensor]:
            logits = model(x[index.to(x.device)])
            loss = functional.cross_entropy(logits.float(), y[index.to(y.device)])
            return {"cross_entropy": loss}

        batches, weights = epochs(len(data), spec, seed, whole=False), {"cross_entropy": 1.0}
        with seeded(seed, self.compute.device):
            return fit(model, batches, terms_of, weights, spec, self.compute)

    def score(self, model: nn.Module, data: Dataset, seed: int) -> Score:
        """Over the labelled examples; over all, when none is, only the predictions' entropy."""
        labelled = data.labelled
        data = data.with_labels() if labelled else data
        logits = embed(model, data.x, self.compute)
        log_p = functional.log_softmax(logits, 1)
        entropy = float(-(log_p.exp() * log_p).sum(1).mean())
        if not labelled:
            return Score(float("nan"), None, entropy)
        losses = functional.nll_loss(log_p, data.y, reduction="none")
        right = (logits.argmax(1) == data.y).double()
        recalls = torch.stack([right[data.y == label].mean() for label in data.y.unique()])
        loss, accuracy, balanced = (float(part.mean()) for part in (losses, right, recalls))
        return Score(loss, accuracy, entropy, balanced, losses, 1 - right)


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

        batches, weights = epochs(len(data), spec, seed, whole=True), self.objective.weights
        with seeded(seed, self.compute.device):
            return fit(model, batches, terms_of, weights, spec, self.compute)

    def score(self, model: nn.Module, data: Dataset, seed: int) -> Score:
        """Mean over batches of the same views for one seed, to compare models; NaN below two."""
        model.eval()
        losses, coins = list[float](), Coins.public(derive_seed(seed, "views"))
        weights = self.objective.weights
        with torch.no_grad(), self.compute.autocast():
            for index in torch.arange(len(data)).split(SCORE_BATCH):
                if len(index) < 2:
                    continue
                terms = self._terms(model, data.x[index], coins.at(0, index))
                losses.append(sum(weights[name] * float(term) for name, term in terms.items()))
        mean = sum(losses) / len(losses) if losses else float("nan")
        return Score(mean, losses=torch.tensor(losses))

    def _terms(self, model: nn.Module, x: Tensor, draws: Draws) -> dict[str, Tensor]:
        batch = TwoViews(*batch_views(self.augment, x.to(self.compute.device), draws))
        return self.objective.terms(batch, model)


def train_mode(model: nn.Module, frozen: bool) -> None:
    """Train mode; a frozen encoder keeps its batch statistics and its weights."""
    model.train()
    if frozen and isinstance(model, Classifier | EncoderProjector):
        model.encoder.eval().requires_grad_(False)


def embed(encoder: nn.Module, x: Tensor, compute: Compute) -> Tensor:
    """Features `[N, F]` of un-augmented examples, float32 on the processor, in eval mode."""
    encoder.eval()
    with torch.no_grad(), compute.autocast():
        parts = x.split(SCORE_BATCH)
        return torch.cat([encoder(part.to(compute.device)).float().cpu() for part in parts])
