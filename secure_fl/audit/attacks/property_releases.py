"""What a client releases about its examples as a whole, from the run's own objects: the statistic
of a training step, and the sketch.

For either: the release itself, as a client makes it; each example's part of it; and what one
release is charged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from secure_fl.coins import Coins
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines import embedded
from secure_fl.federation.asks import GiveSketch
from secure_fl.federation.factory.example_plan import plan_examples
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.federation.local.sketches import ReleasedSketch, client_sketch
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.models.state import to_vector
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.unit_objectives import Statistic, UnitObjective
from secure_fl.privacy.events import Event
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.private_sketch import GRID, PrivateSketch
from secure_fl.seeds import derive_seed
from secure_fl.training.tasks import embed


class Released(ABC):
    """One kind of release of one client.

    Attributes:
        name: in words.
        sees_labels: whether labels are part of it.
    """

    name: str
    sees_labels: bool

    @abstractmethod
    def parts(self, data: Dataset) -> Tensor:
        """Each example's own part of the sum, float64 `[N, size]`, of length 1 at most."""

    @abstractmethod
    def released(self, data: Dataset) -> Tensor:
        """What the client would release of these examples, with fresh noise, float64 `[size]`: in
        units of the sum of parts.
        """

    @property
    @abstractmethod
    def event(self) -> Event:
        """What one release is charged."""

    @property
    @abstractmethod
    def deviation(self) -> float:
        """Of the noise in each number, as the settings say; public."""


class _Enough(Exception):  # noqa: N818
    """A statistic was heard: what a step does with it is not needed."""


@dataclass
class _Heard:
    """A statistic that writes down what was released, and ends the step."""

    statistic: Statistic
    noised: Tensor | None = field(default=None, repr=False)

    @property
    def dimension(self) -> int:
        return self.statistic.dimension

    @property
    def size(self) -> int:
        return self.statistic.size

    def contributions(self, z: Tensor) -> Tensor:
        return self.statistic.contributions(z)

    def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
        self.noised = noised_sum
        raise _Enough


@dataclass(frozen=True)
class _Hearing:
    """An objective whose statistic is heard."""

    objective: UnitObjective
    statistic: _Heard
    coupling: Coupling = Coupling.PER_EXAMPLE

    def unit_losses(self, h: Tensor, z: Tensor, released: Tensor | None) -> Tensor:
        return self.objective.unit_losses(h, z, released)


class OfStatistic(Released):
    """The statistic of a first step of pre-training, in which every example takes part."""

    name, sees_labels = "the released statistic", False

    def __init__(self, path: TrainingPath, mechanism: ReleasedStatistics, seed: int) -> None:
        """For `of`."""
        self._path, self._mechanism, self._seed = path, mechanism, derive_seed(seed, "views")
        assert mechanism.objective.statistic is not None
        self._statistic = mechanism.objective.statistic

    @classmethod
    def of(cls, factory: Factory, client: ClientData, seed: int) -> Self | None:
        """With the noise of the client's own plan; None where pre-training releases none. Raises
        PrivacyError: the objective has no private form.
        """
        if not cls.released_by(factory):
            return None
        path = TrainingPath(factory, "pretrain", client.id, client.id)
        plan = plan_examples(factory, len(client.train), client.train.labels)
        made: object = path.mechanism(len(client.train), 1.0, plan.noise)
        return cls(path, made, seed) if isinstance(made, ReleasedStatistics) else None

    @staticmethod
    def released_by(factory: Factory) -> bool:
        """Whether pre-training releases one. Raises PrivacyError: as `of`."""
        config = factory.facts.config
        if config.privacy.unit != "example" or not config.pretrain.trains:
            return False
        fewest, path = config.privacy.group_size, TrainingPath(factory, "pretrain")
        mechanism: object = path.mechanism(fewest, 1.0, 1.0)
        return isinstance(mechanism, ReleasedStatistics)

    @cached_property
    def _model(self) -> torch.nn.Module:
        return self._path.model()

    def _views(self, data: Dataset) -> Tensor:
        index = torch.arange(len(data))
        coins = Coins.public(self._seed).at(0, index)
        views = self._path.views_of(data.x, data.y)(index[:, None], coins)
        assert isinstance(views, Tensor)
        return views

    def parts(self, data: Dataset) -> Tensor:
        views = self._views(data)
        with torch.no_grad():
            z: Tensor = self._model(views.flatten(0, 1))[1]
        return self._statistic.contributions(z.unflatten(0, views.shape[:2])).double()

    def released(self, data: Dataset) -> Tensor:
        heard = _Heard(self._statistic)
        hearing = _Hearing(self._mechanism.objective, heard)
        stream = embedded.new_noise().stream(client=0, round=0, purpose="property probe")
        listened = replace(self._mechanism, objective=hearing)
        with suppress(_Enough):
            listened.gradients(self._model, self._views(data), stream)
        assert heard.noised is not None
        return heard.noised.double()

    @property
    def event(self) -> Event:
        return self._mechanism.event(1)

    @property
    def deviation(self) -> float:
        return self._mechanism.statistic_noise


class OfSketch(Released):
    """The sketch, centred by what test examples are like on average; of embeddings, those of the
    run's first encoder.
    """

    name = "the released sketch"

    def __init__(self, factory: Factory, client: ClientData) -> None:
        self._factory, self._client, self._bench = factory, client, Workbench(factory)
        form = factory.sketch
        assert form.released is not None
        self._settings: PrivateSketch = form.released
        if form.of_encoder:
            self._bench.keep(to_vector(factory.encoder()))
        self.sees_labels = form.classes > 0
        unit = torch.nn.functional.normalize(self._values(client.test).double(), dim=1)
        self._centre = unit.mean(0) if self._settings.centring else None

    def _values(self, data: Dataset) -> Tensor:
        if not self._factory.sketch.of_encoder:
            return self._factory.sketch.values(data.x)
        return embed(self._bench.kept_encoder, data.x, self._factory.compute)

    def parts(self, data: Dataset) -> Tensor:
        labels = data.y if self._settings.classes else None
        made = self._settings.contributions(self._values(data), labels, self._centre)
        return made.double() / GRID

    def released(self, data: Dataset) -> Tensor:
        own = replace(self._client, train=data, sketched=None)
        releasing = Releasing(own.id, embedded.new_noise(), ReleaseBox(None))
        sketch = client_sketch(own, self._bench, releasing)
        sketch.give(GiveSketch(self._centre))
        assert isinstance(sketch, ReleasedSketch)
        assert sketch.released is not None
        return sketch.released * len(data)

    @property
    def event(self) -> Event:
        return self._settings.events()[-1]

    @property
    def deviation(self) -> float:
        return self._settings.events()[-1].noise_multiplier
