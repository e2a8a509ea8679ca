"""Paths on which one example moves what others contribute, or more than is charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.audit.check import Fault
from secure_fl.audit.planted.example_noise import small, unclipped
from secure_fl.config import FederationConfig
from secure_fl.data.views import own_views
from secure_fl.federation.factory import private_paths
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.coupling import Coupling
from secure_fl.privacy import unit_gradients
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.mechanisms.group import GroupNTXent
from secure_fl.privacy.mechanisms.per_example import PerExample


@dataclass(frozen=True)
class _Rows:
    """NT-Xent row by row, as if each were its example's own."""

    temperature: float
    coupling: Coupling = Coupling.PER_EXAMPLE
    statistic: None = None

    def unit_losses(self, h: Tensor, z: Tensor, released: Tensor | None) -> Tensor:
        """`[U]`, each over the whole batch."""
        unit = functional.normalize(z.transpose(0, 1).flatten(0, 1), dim=1)
        count = len(z)
        logits = (unit @ unit.T / self.temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * count).roll(count)
        losses = functional.cross_entropy(logits, partner, reduction="none")
        return losses.view(2, count).mean(0)


def _of_the_batch(
    _model: nn.Module, h: Tensor, z: Tensor, rows_per_unit: int, unit_losses: Any
) -> list[Tensor]:
    """Gradients of all losses by each row, looked at once: what per-sample hooks see."""
    leaves = [part.detach().requires_grad_() for part in (h, z)]
    units = len(h) // rows_per_unit
    with torch.enable_grad():
        losses = unit_losses(
            *(leaf.reshape(units, rows_per_unit, *leaf.shape[1:]) for leaf in leaves)
        )
        return list(torch.autograd.grad(losses.sum(), leaves, materialize_grads=True))


@contextmanager
def per_sample_nt_xent() -> Iterator[None]:
    """Each example's gradient of the whole batch's NT-Xent is clipped, and nothing looks closer."""

    def mechanism(path: TrainingPath, examples: int, rate: float, noise: float) -> PerExample:
        config = path.factory.facts.config
        rows = _Rows(config.objective.temperature)
        return PerExample(rows, examples, rate, noise, config.privacy.clip)

    with (
        patch.object(TrainingPath, "mechanism", mechanism),
        patch.object(TrainingPath, "members", 1),
        patch.object(unit_gradients, "output_gradients", _of_the_batch),
    ):
        yield


def mixing_views() -> Any:
    """Each example's views hold a share of its neighbour's in the batch."""
    honest = own_views

    def mixed(augment: Any, x: Tensor, draws: Any, count: int) -> tuple[Tensor, ...]:
        views: Sequence[Tensor] = honest(augment, x, draws, count)
        return tuple(0.7 * view + 0.3 * view.roll(1, 0) for view in views)

    return patch.object(private_paths, "own_views", mixed)


def batch_statistics() -> Any:
    """Views are brought to the batch's mean and deviation."""
    honest = own_views

    def scaled(augment: Any, x: Tensor, draws: Any, count: int) -> tuple[Tensor, ...]:
        views: Sequence[Tensor] = honest(augment, x, draws, count)
        return tuple((view - view.mean()) / (view.std() + 0.1) for view in views)

    return patch.object(private_paths, "own_views", scaled)


def _incomplete_kept() -> Any:
    """A group whose member is missing is trained without it."""

    def summed(own: Any, model: nn.Module, views: Tensor) -> list[Tensor]:
        filled = views.nan_to_num(0)
        losses = own.units.unit_losses
        rows = filled.flatten(0, 1)
        return unit_gradients.clipped_sum(model, rows, views.shape[1], losses, own.bound).gradients

    return patch.object(GroupNTXent, "_sum", summed)


def _half_claimed() -> Any:
    """A replaced example is said to move a sum by C, where it moves it by 2C."""

    def sensitivity(own: Any, _adjacency: Adjacency) -> list[float]:
        return [own.bound]

    return patch.object(GroupNTXent, "sensitivity", sensitivity)


@contextmanager
def mixing_model() -> Iterator[None]:
    """The mean of the batch is taken off embeddings, and nothing looks closer."""
    honest = EncoderProjector.forward

    def forward(own: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        h, z = honest(own, x)
        return h, z - 0.5 * z.mean(0, keepdim=True)

    with (
        patch.object(EncoderProjector, "forward", forward),
        patch.object(unit_gradients, "check_some_alone", lambda *_: None),
    ):
        yield


def in_groups() -> FederationConfig:
    """NT-Xent at a low temperature in groups."""
    privacy = {"unit": "example", "noise": 2.0, "epsilon": 500.0, "mechanism": "group"}
    objective = {"name": "nt_xent", "temperature": 0.05}
    return small(objective=objective, privacy={**privacy, "clip": 0.1})


_HUBS: tuple[tuple[str, Callable[[], FederationConfig], Callable[[], Any]], ...] = (
    ("per-sample clipping of NT-Xent", in_groups, per_sample_nt_xent),
    ("batch-coupled augmentation: neighbours mixed", small, mixing_views),
    ("batch-coupled augmentation: batch statistics", small, batch_statistics),
    ("a model that takes off the batch's mean", small, mixing_model),
)
_COUPLING: tuple[tuple[str, Callable[[], FederationConfig], Callable[[], Any]], ...] = (
    ("per-sample clipping of NT-Xent", in_groups, per_sample_nt_xent),
    ("batch-coupled augmentation: neighbours mixed", small, mixing_views),
    ("no clip factor", in_groups, unclipped),
    ("incomplete groups kept", in_groups, _incomplete_kept),
    ("replace-one claimed as zero-out", in_groups, _half_claimed),
)

HUBS = tuple(Fault(name, "hubs", config, plant) for name, config, plant in _HUBS)
"""Each must be called broken by `hubs`."""
FAULTS = tuple(Fault(name, "coupling", config, plant) for name, config, plant in _COUPLING)
"""Each must be called broken by `coupling`."""
