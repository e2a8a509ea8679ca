"""Using what a finished run leaves: examples prepared as its own, embedded, and classified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from secure_fl.config import FederationConfig
from secure_fl.data.columns import Declared
from secure_fl.data.dataset import Array, Dataset
from secure_fl.data.given import frame_like, is_frame
from secure_fl.data.layout import Layout
from secure_fl.data.sources import prepared
from secure_fl.data.sources.files import read_like
from secure_fl.data.tables import aligned
from secure_fl.errors import DataError, ModelError
from secure_fl.federation.asks import Guide
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.finished.artifacts import ModelCard, load_card, load_centre, load_encoder, load_pools
from secure_fl.models.heads import Classifier
from secure_fl.paths import path_of
from secure_fl.pools.pool_set import PoolModel
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed

Examples = Any
"""What `Dataset.of` takes."""


@dataclass(frozen=True)
class Models:
    """What a run leaves to be used.

    Attributes:
        config: the run's.
        card: shape of one example, scaling, classes.
        encoder: in eval mode.
        pools: one model a pool, in eval mode; empty without a cluster phase.
        guide: the groups of the sketch start, where there was one.
        centre: what their sketches were centred by, where they were.
    """

    config: FederationConfig
    card: ModelCard
    encoder: nn.Module = field(repr=False)
    pools: list[PoolModel] = field(repr=False)
    guide: Guide | None = field(default=None, repr=False)
    centre: Tensor | None = field(default=None, repr=False)

    @classmethod
    def load(cls, folder: Path | str, encoder: nn.Module | None = None) -> Models:
        """Those of a finished run.

        Args:
            folder: the run's.
            encoder: a module of the same architecture, needed where the run was given one of the
                caller's own.

        Raises:
            RunFolderError: no finished run there.
            ModelError: the run used a module of the caller's own and none is given, or it does
                not fit.
        """
        config = RunFolder.open(path_of(folder, "run folder")).read_config()
        card, module = load_card(folder), load_encoder(folder, encoder)
        if not config.pools.enabled:
            return cls(config, card, module, [])
        pools, guide = load_pools(folder, encoder)
        return cls(config, card, module, pools, guide, load_centre(folder))

    def read(self, x: Examples, y: Any = None) -> Dataset:
        """Examples, and labels, of a client's own in the run's shape and numbering; columns of
        tables are not scaled yet.

        Args:
            x: `[N, *shape]`, or anything that `Dataset.of` takes. A missing channel axis is added,
                and one that comes last is brought to the front.
            y: numbers of classes or, where the run has them, their names; -1 for an example without
                a label.

        Raises:
            DataError: not of the run's shape, or labels that the run does not know.
        """
        if isinstance(x, Dataset) and y is not None:
            raise DataError.of_kind(
                "a Dataset has its labels already", "y", y, "give the labels when it is made"
            )
        declared = self._declared
        with self._as_ours():
            raw = aligned(x, self.card.columns) if isinstance(x, Dataset) else self._given(x, y)
            raw = raw.with_classes(**declared.given)
        asked = {"scale": self.card.scale, "image_size": self.card.image_size}
        data = prepared(raw, self.config.data.model_copy(update=asked))
        if data.shape != self.card.shape:
            problem = f"examples are not of shape {self.card.shape}"
            remedy = "bring the examples into the shape the federation was trained on"
            raise DataError(problem, field="x", value=data.shape, remedy=remedy)
        return data

    def of_file(self, path: Path) -> Dataset:
        """Examples of a newcomer's file or folder, of any kind that runs read, by its suffix;
        columns are named as the run's were.

        Raises:
            DataError: no such file, or what its reader refuses.
        """
        with self._as_ours():
            return read_like(path, self.config.data, self._declared, self.card.columns, self._kind)

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        """Says of labels that the run does not know which ones it does."""
        try:
            yield
        except DataError as error:
            if "data.sources" in error.remedy:
                remedy = (
                    "bring the column as the run's table had it: drop such rows, or fill them in"
                )
                raise DataError(
                    error.problem, field=error.field, value=error.value, remedy=remedy
                ) from None
            if not error.problem.startswith("labels "):
                raise
            known, last = self.card.class_names, self.card.classes - 1
            remedy = f"number the classes 0..{last} as the federation's clients do"
            if known:
                remedy = f"use the run's: {', '.join(known)}"
            raise DataError.unshown(
                f"labels outside the federation's {self.card.classes}", "y", remedy
            ) from None

    @property
    def _label(self) -> str | None:
        """The column that the run's table had its labels in."""
        return next(
            (source.label for source in self.config.data.sources if source.label is not None), None
        )

    @property
    def _kind(self) -> Literal["image", "series", "vector"]:
        kinds: tuple[Literal["vector", "series", "image"], ...] = ("vector", "series", "image")
        return kinds[len(self.card.shape) - 1]

    @property
    def _declared(self) -> Declared:
        """Labels are numbered as the federation's are, whichever of them the newcomer has."""
        classes = self.card.classes
        names = self.card.class_names or tuple(map(str, range(classes)))
        return Declared(classes, names) if classes else Declared()

    def _given(self, x: Any, y: Any) -> Dataset:
        declared = self._declared
        if is_frame(x) and self.card.columns:
            data = frame_like(x, self.card.columns, self._label, declared, "examples")
            return data if y is None else data.labelled_as(y, declared)
        if not isinstance(x, Tensor | np.ndarray | list):
            return Dataset.of(x if y is None else (x, y), name="examples")
        array = _array(x, "x")
        axes = len(self.card.shape)
        if array.ndim not in (axes + 1, axes + (self.card.shape[0] > 1)):
            problem = f"examples are not of shape {self.card.shape}"
            remedy = "bring the examples into the shape the federation was trained on"
            raise DataError(problem, field="x", value=tuple(array.shape[1:]), remedy=remedy)
        if array.ndim == 2 and self._kind == "series":
            array = array[:, None]
        told: dict[str, Any] = {"kind": self._kind, "layout": self._layout(array)}
        return Dataset.from_arrays(array, y, **declared.given, **told, name="examples")

    def _layout(self, array: Any) -> Layout:
        """Where channels are, as the run's own examples tell it; else found by the sizes."""
        channels, sizes = self.card.shape[0], tuple(array.shape[1:])
        if (
            len(sizes) != len(self.card.shape)
            or len(sizes) < 2
            or (sizes[0] == channels) == (sizes[-1] == channels)
        ):
            return "channels_first" if sizes == self.card.shape else "auto"
        return "channels_first" if sizes[0] == channels else "channels_last"

    def prepare(self, x: Examples, y: Any = None, client: int | None = None) -> Dataset:
        """Examples, and labels, of a client's own, scaled and resized as the run's were; arguments
        and errors as `read`.

        Columns of tables that each client scales by its own statistics are scaled by those of
        `client`, where the record tells them, and else by those of the examples given here.
        """
        return self.card.scaling.alone(self.read(x, y), self.card.client_scales.get(str(client)))

    def embed(self, data: Dataset) -> Tensor:
        """Features `[N, F]` of prepared examples, float32 on the processor."""
        return embed(self.encoder, data.x, self.compute(self.encoder))

    def probabilities(self, data: Dataset, pool: int) -> Tensor:
        """What a pool's model says of prepared examples: probability of each class, `[N, classes]`,
        float32 on the processor.

        Raises:
            ModelError: the pools were trained without labels.
        """
        model = self.pools[pool]
        if not isinstance(model, Classifier):
            problem = "the run's pools know no classes"
            remedy = 'use embed(x), or train the pools with pools.task = "supervised"'
            raise ModelError(problem, field="pools.task", value=self.card.task, remedy=remedy)
        return embed(model, data.x, self.compute(model)).softmax(1)

    def compute(self, model: nn.Module) -> Compute:
        """Where a model is, at the run's precision."""
        found = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
        return Compute(found, self.config.runtime.precision == "mixed")


def from_rows(x: Array, card: ModelCard) -> Array:
    """Rows `[N, F]`, as scikit-learn passes examples, in one example's shape where it fits."""
    flat = getattr(x, "ndim", 0) == 2 and len(card.shape) > 1 and x.shape[1] == prod(card.shape)
    return x.reshape(-1, *card.shape) if flat else x


def _array(values: Array | list[Any], name: str) -> Array:
    """A tensor as it is; lists, data frames and the like as an array."""
    try:
        return values if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:
        remedy = "give one array of numbers"
        raise DataError.of_kind("entries differ in shape", name, values, remedy) from None
