"""Using what a finished run leaves: examples prepared as the run's own were, embedded, and classified by a pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from secure_fl.artifacts import ModelCard, load_card, load_centre, load_encoder, load_pools
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Array, Dataset
from secure_fl.data.sources import prepared
from secure_fl.errors import DataError, ModelError
from secure_fl.federation.folder import RunFolder
from secure_fl.federation.messages import Guide
from secure_fl.models.heads import Classifier
from secure_fl.paths import path_of
from secure_fl.pools.pool_set import PoolModel
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed


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
            encoder: a module of the same architecture, needed where the run was given one of the caller's own.

        Raises:
            RunFolderError: no finished run there.
            ModelError: the run used a module of the caller's own and none is given, or it does not fit.
        """
        config = RunFolder.open(path_of(folder, "run folder")).read_config()
        card, module = load_card(folder), load_encoder(folder, encoder)
        if not config.pools.enabled:
            return cls(config, card, module, [])
        pools, guide = load_pools(folder, encoder)
        return cls(config, card, module, pools, guide, load_centre(folder))

    def prepare(self, x: Array, y: Array | None = None) -> Dataset:
        """Examples, and labels, of a client's own, scaled and resized as the run's were.

        Args:
            x: `[N, *shape]`. A missing channel axis is added, and one that comes last is brought to the front.
            y: numbers of classes or, where the run has them, their names; -1 for an example without a label.

        Raises:
            DataError: not of the run's shape, or labels that the run does not know.
        """
        labels = None if y is None else self._numbers(y)
        raw = Dataset.from_arrays(_oriented(x, self.card), labels, name="examples")
        data = prepared(raw, self.config.data.model_copy(update={"scale": self.card.scale, "image_size": self.card.image_size}))
        if self.card.classes and data.classes > self.card.classes:
            remedy = "number its classes as the federation's clients do"
            raise DataError(f"labels outside the federation's 0..{self.card.classes - 1}", field="y", value="not shown", remedy=remedy)
        if data.shape != self.card.shape:
            remedy = "bring the examples into the shape the federation was trained on"
            raise DataError(f"examples are not of shape {self.card.shape}", field="x", value=data.shape, remedy=remedy)
        return data

    def embed(self, data: Dataset) -> Tensor:
        """Features `[N, F]` of prepared examples, float32 on the processor."""
        return embed(self.encoder, data.x, self.compute(self.encoder))

    def probabilities(self, data: Dataset, pool: int) -> Tensor:
        """What a pool's model says of prepared examples: probability of each class, `[N, classes]`, float32 on the processor.

        Raises:
            ModelError: the pools were trained without labels.
        """
        model = self.pools[pool]
        if not isinstance(model, Classifier):
            remedy = 'use embed(x), or train the pools with pools.task = "supervised"'
            raise ModelError("the run's pools know no classes", field="pools.task", value=self.card.task, remedy=remedy)
        return embed(model, data.x, self.compute(model)).softmax(1)

    def compute(self, model: nn.Module) -> Compute:
        """Where a model is, at the run's precision."""
        found = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
        return Compute(found, self.config.runtime.precision == "mixed")

    def _numbers(self, y: Array) -> Array:
        """Labels as numbers; names are looked up among the run's."""
        values = _array(y, "y")
        if isinstance(values, Tensor) or values.dtype.kind not in "UO":
            return values
        numbers = {name: number for number, name in enumerate(class_names(self.card))}
        if not numbers:
            remedy = "give numbers from 0; names are known to runs on data that had them"
            raise DataError("labels are names, and the run has numbers only", field="y", value=str(values.dtype), remedy=remedy)
        if any(str(value) not in numbers for value in values.flat):
            remedy = f"use the run's: {', '.join(numbers)}"
            raise DataError("labels that the run does not know", field="y", value="not shown", remedy=remedy)
        return np.array([numbers[str(value)] for value in values.flat], dtype=np.int64).reshape(values.shape)


def class_names(card: ModelCard) -> tuple[str, ...]:
    """Names of the classes in number order; () where numbers are all there is."""
    return tuple(getattr(card, "class_names", ()))


def from_rows(x: Array, card: ModelCard) -> Array:
    """Rows `[N, F]`, as scikit-learn passes examples, in the shape of one example where they have as many values."""
    flat = getattr(x, "ndim", 0) == 2 and len(card.shape) > 1 and x.shape[1] == prod(card.shape)
    return x.reshape(-1, *card.shape) if flat else x


def _oriented(x: Array, card: ModelCard) -> Array:
    """Axes as the run's examples have them: one channel is added where the run has one, channels in the last place come to the front."""
    array = _array(x, "x")
    wanted, channels = len(card.shape) + 1, card.shape[0]
    if array.ndim == wanted - 1 and wanted > 2 and channels == 1:
        return array[:, None]
    if array.ndim == wanted == 4 and array.shape[1] != channels and array.shape[3] == channels:
        return array.permute(0, 3, 1, 2) if isinstance(array, Tensor) else array.transpose(0, 3, 1, 2)
    return array


def _array(values: Array, name: str) -> Array:
    """A tensor as it is; lists, data frames and the like as an array."""
    try:
        return values if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:
        remedy = "give one array of numbers"
        raise DataError("entries differ in shape", field=name, value=type(values).__name__, remedy=remedy) from None
