"""The check of a whole run, on public facts and noise, before anything is released or
charged (`run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt

import torch
from torch import Tensor

from secure_fl.federation.example_plan import chooses_by_loss
from secure_fl.federation.factory import Blueprint
from secure_fl.federation.private_paths import TrainingPath, Views
from secure_fl.privacy.views_apart import Examples, ViewsOf, check_augmentation
from secure_fl.privacy.whole_path import check_embedding, check_training
from secure_fl.training.tasks import SCORE_BATCH


def check_paths(blueprint: Blueprint, most: int) -> None:
    """Refuse a run in which an example could move more than its own part of a release, before
    anything is released or charged.

    **Guarantee**, **Assumes**, **Not covered**: as in `whole_path`; here the augmentation, models
    and batches are the run's own.

    Args:
        most: training examples of the largest client; no batch of the run is larger.

    Raises:
        PrivacyError: the augmentation, a model or an encoder treats examples together, or
            remembers them.
    """
    paths = list(_training_paths(blueprint))
    if any(path.augments for path in paths):
        check_augmentation(blueprint.augment, Examples(blueprint.shape, blueprint.compute.device))
    for path in paths:
        _check_training(path, most)
    embedding = Examples(blueprint.shape, blueprint.compute.device, min(SCORE_BATCH, most))
    if chooses_by_loss(blueprint.config):
        check_embedding(blueprint.pool_model(0), embedding)
    if blueprint.private_sketch is not None and blueprint.sketch.of_encoder:
        check_embedding(blueprint.encoder(), embedding)


def _check_training(path: TrainingPath, most: int) -> None:
    blueprint = path.blueprint
    settings = blueprint.config.pretrain if path.phase == "pretrain" else blueprint.config.pools
    # A step draws more than six deviations above its mean once in 10⁹ times.
    largest = min(most, ceil(settings.batch_size + 6 * sqrt(settings.batch_size)))
    mechanism = path.mechanism(max(largest, path.members), 1.0, 1.0)

    def views_of(x: Tensor) -> ViewsOf[Views]:
        return path.views_of(x, torch.arange(len(x)) % max(1, blueprint.classes))

    examples = Examples(blueprint.shape, blueprint.compute.device, largest)
    check_training(path.model(), mechanism, views_of, path.members, examples)


def _training_paths(blueprint: Blueprint) -> Iterator[TrainingPath]:
    """The way of a training step, for every phase that trains with example-level privacy."""
    if blueprint.config.privacy.unit != "example":
        return
    if blueprint.config.pretrain.mode == "federated":
        yield TrainingPath(blueprint, "pretrain")
    if blueprint.config.pools.enabled:
        yield TrainingPath(blueprint, "cluster")
