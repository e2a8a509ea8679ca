"""The right pool for a client that joins a finished federation: CP-CFL's everyday use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from secure_fl.artifacts import ModelCard, load_card, load_centre, load_encoder, load_pools
from secure_fl.config import FederationConfig, SourceConfig
from secure_fl.data.columns import Declared
from secure_fl.data.pooled import pooled_values
from secure_fl.data.sources import prepared
from secure_fl.data.sources.npz import npz
from secure_fl.data.views import build_views
from secure_fl.errors import DataError
from secure_fl.federation.folder import RunFolder
from secure_fl.federation.messages import Guide
from secure_fl.federation.sketch_form import SketchForm
from secure_fl.models.heads import feature_width
from secure_fl.objectives.build import build_objective
from secure_fl.pools.selection import best_pool
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
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


def assign_pool(folder: Path | str, file: Path | str, *, encoder: nn.Module | None = None) -> Assignment:
    """Choose a pool for the examples in an `.npz`, prepared as the run's own were.

    Without labels it is the group whose centre is nearest to the newcomer's own sketch. That sketch is made here, without noise, in the public
    projection of the run's sketches where these were noised, and goes nowhere.

    Args:
        folder: a finished run with pools.
        file: `x`, and `y` where there are labels.
        encoder: a module of the same architecture where the run was given one.

    Raises:
        RunFolderError: no such run.
        DataError: the examples are not of the run's shape.
    """
    config, card = RunFolder.open(Path(folder)).read_config(), load_card(folder)
    kind: Literal["image", "series", "vector"] = "image" if len(card.shape) == 3 else "series" if len(card.shape) == 2 else "vector"
    # Labels are numbered as the federation's are, whichever of them the newcomer has.
    declared = Declared(card.classes, card.class_names or tuple(map(str, range(card.classes)))) if card.classes else Declared()
    try:
        raw, _ = npz(SourceConfig(name="npz", path=str(file), kind=kind), declared)
    except DataError as error:
        if not error.problem.startswith("labels outside"):
            raise
        there = "names of classes" if card.class_names else f"0..{card.classes - 1}"
        remedy = "name or number its classes as the federation's clients do"
        raise DataError(f"labels outside the federation's {there}", field="y", value="not shown", remedy=remedy) from None
    data = prepared(raw, config.data.model_copy(update={"scale": card.scale, "image_size": card.image_size}))
    if data.shape != card.shape:
        remedy = "bring the examples into the shape the federation was trained on"
        raise DataError(f"examples are not of shape {card.shape}", field="x", value=data.shape, remedy=remedy)
    pools, guide = load_pools(folder, encoder)
    compute, seed = Compute.of(config.runtime), derive_seed(config.seed, "assign")
    task: Task = Supervised(compute)
    if card.task == "self_supervised":
        task = SelfSupervised(build_objective(config.objective), build_views(config.views, card.shape), compute)
    scores = [task.score(pool.to(compute.device), data, seed) for pool in pools]
    distances: list[float | None] = [None] * len(pools)
    if guide is not None:
        distances = _distances(guide, folder, encoder, config, card, data.x, compute)
    known = card.task == "self_supervised" or data.labelled
    pool, by = _decided(scores, known, config.pools.select_by, distances)
    rows = tuple((_finite(s.loss), s.accuracy, s.entropy, distance) for s, distance in zip(scores, distances, strict=True))
    return Assignment(pool, by, len(data), rows)


def _distances(
    guide: Guide, folder: Path | str, encoder: nn.Module | None, config: FederationConfig, card: ModelCard, x: Tensor, compute: Compute
) -> list[float | None]:
    """How far the examples' plain sketch is from each group's."""
    model = load_encoder(folder, encoder).to(compute.device)
    form = SketchForm.of(config, card.shape, card.classes, feature_width(model, card.shape))
    own = form.plain_sketch(embed(model, x, compute) if form.of_encoder else pooled_values(x), load_centre(folder))
    found: list[float | None] = (form.plain(guide.centres) - (own - form.plain(guide.mean))).norm(dim=1).tolist()
    return found


def _decided(scores: list[Score], known: bool, select_by: str, distances: list[float | None]) -> tuple[int, str]:
    """The order of preference is that of a client inside the federation."""
    if known:
        by: Literal["loss", "accuracy"] = "accuracy" if select_by == "accuracy" else "loss"
        return best_pool([s.loss for s in scores], [s.accuracy for s in scores], by), by
    if distances[0] is not None:
        return min(range(len(scores)), key=lambda k: distances[k] or 0.0), "sketch distance"
    return best_pool([float("nan") if s.entropy is None else s.entropy for s in scores], [], "loss"), "entropy"


def _finite(value: float) -> float | None:
    return value if value == value else None
