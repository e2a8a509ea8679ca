"""The right pool for a client that joins a finished federation: CP-CFL's everyday use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from secure_fl.data.dataset import Dataset
from secure_fl.data.views import build_views
from secure_fl.errors import ModelError
from secure_fl.federation.factory.sketch_form import SketchForm
from secure_fl.finished.inference import Examples, Models
from secure_fl.models.heads import feature_width
from secure_fl.objectives.build import build_objective
from secure_fl.paths import path_of
from secure_fl.pools.pool_set import PoolModel
from secure_fl.pools.selection import best_pool
from secure_fl.seeds import derive_seed
from secure_fl.training.tasks import Score, SelfSupervised, Supervised, Task, embed


@dataclass(frozen=True)
class Assignment:
    """The answer.

    Attributes:
        pool: the pool to use.
        by: what decided: loss, accuracy, sketch distance or entropy.
        examples: how many were judged by.
        scores: (loss, accuracy, entropy, sketch distance) a pool, None where it is not known.
    """

    pool: int
    by: str
    examples: int
    scores: tuple[tuple[float | None, float | None, float | None, float | None], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def assign_pool(
    folder: Path | str, file: Path | str, *, encoder: nn.Module | None = None
) -> Assignment:
    """Choose a pool of a finished run for the examples of a file or folder; see `assign`.

    Args:
        folder: a finished run with pools.
        file: of any kind that runs read: `.npz`, `.npy`, CSV, Parquet, a folder of pictures; with
            labels where there are some.
        encoder: a module of the same architecture where the run was given one.

    Raises:
        RunFolderError: no such run.
        DataError: the file is of no kind that is read, or the examples are not of the run's shape.
    """
    path, models = path_of(file, "file"), Models.load(folder, encoder)
    return assign(models, models.of_file(path))


def assign(models: Models, x: Examples, y: Any = None) -> Assignment:
    """Choose a pool for a client's examples, prepared as the run's own were.

    With labels it is the pool of lowest loss (as `pools.select_by` says). Without, the group whose
    centre is nearest to the newcomer's own sketch, which is made here, without noise, in the public
    projection of the run's sketches where these were noised, and goes nowhere; and where the run
    had no sketches, the pool with the surest predictions.

    Raises:
        ModelError: the run has no pools.
        DataError: the examples are not of the run's shape, or labels outside of its own.
    """
    if not models.pools:
        remedy = "run it with pools.enabled = true"
        raise ModelError("the run has no pools", field="pools.enabled", value=False, remedy=remedy)
    config, card, raw = models.config, models.card, models.read(x, y)
    seed, data = derive_seed(config.seed, "assign"), card.scaling.alone(raw)

    def task(pool: PoolModel) -> Task:
        compute = models.compute(pool)
        if card.task == "supervised":
            return Supervised(compute)
        return SelfSupervised(
            build_objective(config.objective), build_views(config.views, card.shape), compute
        )

    scores = [task(pool).score(pool, data, seed) for pool in models.pools]
    distances = _distances(models, raw)
    pool, by = _decided(
        scores, card.task == "self_supervised" or data.labelled, config.pools.select_by, distances
    )
    pairs = zip(scores, distances, strict=True)
    rows = tuple((_finite(s.loss), s.accuracy, s.entropy, far) for s, far in pairs)
    return Assignment(pool, by, len(data), rows)


def _distances(models: Models, raw: Dataset) -> list[float | None]:
    """How far the examples' plain sketch is from each group's; None without groups."""
    guide, encoder, card = models.guide, models.encoder, models.card
    if guide is None:
        return [None] * len(models.pools)
    form = SketchForm.of(
        models.config, card.shape, card.classes, feature_width(encoder, card.shape)
    )
    if form.of_encoder:
        values = embed(encoder, card.scaling.alone(raw).x, models.compute(encoder))
    else:
        values = form.values(card.scaling.sketched(raw))
    own = form.plain_sketch(values, models.centre)
    found: list[float | None] = (
        (form.plain(guide.centres) - (own - form.plain(guide.mean))).norm(dim=1).tolist()
    )
    return found


def _decided(
    scores: list[Score], known: bool, select_by: str, distances: list[float | None]
) -> tuple[int, str]:
    """As a client inside the federation prefers, but for `pools.keep_margin`, for young heads."""
    if known:
        by: Literal["loss", "accuracy"] = "accuracy" if select_by == "accuracy" else "loss"
        return best_pool([s.loss for s in scores], [s.accuracy for s in scores], by), by
    if distances[0] is not None:
        return min(range(len(scores)), key=lambda k: distances[k] or 0.0), "sketch distance"
    return best_pool(
        [float("nan") if s.entropy is None else s.entropy for s in scores], [], "loss"
    ), "entropy"


def _finite(value: float) -> float | None:
    return value if value == value else None
