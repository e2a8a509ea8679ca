"""The check of a whole run, on public facts and noise, before anything is released or
charged (`run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt

import torch
from torch import Tensor

from secure_fl.federation.factory.example_plan import chooses_by_loss
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.private_paths import TrainingPath, Views
from secure_fl.privacy.views_apart import Examples, ViewsOf, check_augmentation
from secure_fl.privacy.whole_path import check_embedding, check_training
from secure_fl.training.tasks import SCORE_BATCH


def check_paths(factory: Factory, most: int) -> None:
    """Refuse a run in which an example could move more than its own part of a release, before
    anything is released or charged.

    **Guarantee**, **Assumes**, **Not covered**: as in `whole_path`; here the augmentation, models
    and batches are the run's own.

    Args:
        most: training examples of the largest client; no batch of the run is larger.

    Raises:
        PrivacyError: the augmentation, a model or an encoder treats examples together, or
            remembers them; or a sum of so many examples could overflow.
    """
    if factory.facts.config.pretrain.sums_moments:
        for sums in factory.view_moments.sums:
            sums.check_examples(most)
    paths, moments = list(_training_paths(factory)), factory.facts.config.noises_moments
    if moments or any(path.augments for path in paths):
        check_augmentation(factory.augment, Examples(factory.facts.shape, factory.compute.device))
    for path in paths:
        _check_training(path, most)
    embedding = Examples(factory.facts.shape, factory.compute.device, min(SCORE_BATCH, most))
    if moments:
        check_embedding(factory.view_features(), embedding)
    if chooses_by_loss(factory.facts.config):
        check_embedding(factory.pool_model(0), embedding)
    if factory.sketch.released is not None:
        check_embedding(
            factory.encoder() if factory.sketch.of_encoder else factory.sketch.map, embedding
        )


def _check_training(path: TrainingPath, most: int) -> None:
    factory, config = path.factory, path.factory.facts.config
    settings = config.pretrain if path.phase == "pretrain" else config.pools
    # A step draws more than six deviations above its mean once in 10⁹ times.
    largest = min(most, ceil(settings.batch_size + 6 * sqrt(settings.batch_size)))
    mechanism = path.mechanism(max(largest, path.members), 1.0, 1.0)

    def views_of(x: Tensor) -> ViewsOf[Views]:
        return path.views_of(x, torch.arange(len(x)) % max(1, factory.facts.classes))

    examples = Examples(factory.facts.shape, factory.compute.device, largest)
    check_training(path.model(), mechanism, views_of, path.members, examples)


def _training_paths(factory: Factory) -> Iterator[TrainingPath]:
    """The way of a training step, for every phase that trains with example-level privacy."""
    config = factory.facts.config
    if config.privacy.unit != "example":
        return
    if config.pretrain.trains:
        yield TrainingPath(factory, "pretrain")
    if config.pools.enabled:
        yield TrainingPath(factory, "cluster")
