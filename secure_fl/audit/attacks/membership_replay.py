"""One client's share of a run, trained alone by the run's own objects: what membership attacks look
at.

The strongest view of one client is that of whoever knows all others': then nothing but the client's
own updates moves the models. So the client answers the run's own questions round by round, and the
models move by its answers alone. Which of two examples it trained on in each slot was decided by
coins; the models' claim is that of the releases that it charges for, at replace-one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from secure_fl.config import OptimiserConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines import embedded
from secure_fl.federation.asks import PoolScore, TrainEncoder, TrainPool
from secure_fl.federation.client import Client
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.pools import draw_pools
from secure_fl.federation.steps.program import StepProgram
from secure_fl.models.state import load_vector, to_vector
from secure_fl.pools.pool_set import PoolModel, PoolSet
from secure_fl.privacy.accounting import Charge
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.secure_sum.grid import Blocks
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import Task

Phase = Literal["pretrain", "cluster"]
_BATCHES = 4
"""Steps an epoch without protection, at least."""


@dataclass(frozen=True)
class Moved:
    """A phase as whoever sees the client's updates sees it.

    Attributes:
        start: the model that it began with.
        first: what its first round changed.
        end: the model that it ended with.
    """

    start: Tensor = field(repr=False)
    first: Tensor = field(repr=False)
    end: Tensor = field(repr=False)


@dataclass(frozen=True)
class Replay:
    """How one client's training is repeated.

    Attributes:
        factory: the run's.
        client: whose training; the examples are given anew each time.
        rounds: of pre-training and of pools that are replayed.
        epochs: of a training without any protection.
    """

    factory: Factory
    client: ClientData
    rounds: Mapping[Phase, int]
    epochs: int = 40

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases of the run that train on this client's examples."""
        config = self.factory.facts.config
        trains = config.pools.task == "self_supervised" or self.client.train.labels >= 2
        runs: dict[Phase, bool] = {
            "pretrain": config.pretrain.trains,
            "cluster": config.pools.enabled and trains,
        }
        return tuple(phase for phase, there in runs.items() if there)

    # As the run trains

    def defended(self, train: Dataset) -> tuple[dict[Phase, Moved], tuple[Charge, ...]]:
        """What the client sends over the rounds, by phase, and what it charges for. Raises
        SecureFLError: as the run would.
        """
        answers = _Answers(self, train)
        made = {phase: answers.moved(phase) for phase in self.phases}
        return made, tuple(answers.charged)

    # Without any protection

    def open(self, train: Dataset, seed: int) -> dict[Phase, Moved]:
        """The same models, objective, views and rates, without clipping, noise and sums, for so
        many epochs that they learn their examples by heart. Raises TrainingError: it diverges.
        """
        factory, made = self.factory, dict[Phase, Moved]()
        model = factory.encoder_projector()
        if "pretrain" in self.phases:
            made["pretrain"] = self._fitted("pretrain", model, train, seed)
        if "cluster" in self.phases:
            pool = factory.pool_model(factory.facts.seed("pools", 0, 0))
            pool.encoder.load_state_dict(model.encoder.state_dict())
            made["cluster"] = self._fitted("cluster", pool, train, seed)
        return made

    def _fitted(self, phase: Phase, model: PoolModel, train: Dataset, seed: int) -> Moved:
        config, who = self.factory.facts.config, self.client.id
        settings: OptimiserConfig = config.pretrain if phase == "pretrain" else config.pools
        first = phase == "pretrain"
        task: Task = (self.factory.pretrain_task if first else self.factory.pool_task)(who, who)
        batch = max(2, min(settings.batch_size, len(train) // _BATCHES))
        spec = LocalSpec(1, len(train), settings.lr, settings.momentum, settings.weight_decay)
        start = self.vector(phase, model)
        task.fit(model, train, spec, seed)  # one step over all: what is sent first
        moved = self.vector(phase, model) - start
        task.fit(model, train, replace(spec, epochs=self.epochs, batch_size=batch), seed + 1)
        return Moved(start, moved, self.vector(phase, model))

    # Models

    def vector(self, phase: Phase, model: PoolModel) -> Tensor:
        """What of a model a phase trains and sums, shared part first."""
        if phase == "pretrain":
            return to_vector(model)
        return torch.cat(self.factory.pool_layout.parts(model))

    def model(self, phase: Phase, vector: Tensor, encoder: nn.Module | None) -> PoolModel:
        """The model of a vector, in eval mode; `encoder`: the pre-trained one, where pools keep it
        frozen.
        """
        if phase == "pretrain":
            made: PoolModel = self.factory.encoder_projector()
            load_vector(made, vector)
            return made.eval()
        made, layout = self.factory.pool_model(0), self.factory.pool_layout
        if encoder is not None:
            made.encoder.load_state_dict(encoder.state_dict())
        shared = len(layout.parts(made)[0])
        layout.load(made, PoolSet(vector[:shared], vector[shared:][None]), 0)
        return made.eval()


class _Answers:
    """A client of the run with other examples, asked round by round."""

    def __init__(self, replay: Replay, train: Dataset) -> None:
        self._replay, self._factory, self._noise = replay, replay.factory, embedded.new_noise()
        data = replace(replay.client, train=train, sketched=None)
        program, box = StepProgram(self._factory, steps_of(self._factory)), ReleaseBox(None)
        self._client = Client.of(program, data, Workbench(self._factory), self._noise, box)
        self._encoder = to_vector(self._factory.encoder())
        self.charged: list[Charge] = []

    def moved(self, phase: Phase) -> Moved:
        """A phase, from where the one before it has ended."""
        start = vector = self._first(phase)
        changes = list[Tensor]()
        for number in range(self._replay.rounds[phase]):
            changes.append(self._answer(phase, number, vector))
            vector = vector + changes[-1]
        if phase == "pretrain":
            model = self._replay.model(phase, vector, None)
            self._encoder = to_vector(model.encoder)
        return Moved(start, changes[0], vector)

    def _first(self, phase: Phase) -> Tensor:
        if phase == "pretrain":
            return to_vector(self._factory.encoder_projector())
        if self._factory.facts.config.keeps_encoder:
            self._client.local.bench.keep(self._encoder)
        self._pools = draw_pools(self._factory, State(Place(0, 0), {"encoder": self._encoder}))
        return torch.cat([self._pools.shared, self._pools.pooled[0]])

    def _answer(self, phase: Phase, number: int, vector: Tensor) -> Tensor:
        """A round's change `[S + P]`, as it is laid open."""
        protection, position = self._client.protection, self._client.local.data.id
        updates = Updates.of(self._factory, phase, 1)
        ask: TrainEncoder | TrainPool = TrainEncoder(number, vector, updates.first_bound)
        if phase == "cluster":
            width = len(self._pools.shared)
            rows = torch.cat([vector[None, width:], self._pools.pooled[1:]])
            pools = PoolSet(vector[:width], rows)
            ask = TrainPool(number, pools, forced=True, bound=updates.first_bound)
        released = protection.releases(ask, position)
        self.charged += [Charge(each.event, Adjacency.REPLACE_ONE) for each in released]
        if isinstance(ask, TrainEncoder):
            trained = protection.train_encoder(ask, position)
        else:
            trained = protection.train_pool(ask, 0, position)
        if updates.level is None:
            return trained.change
        sent = protection.sent(ask, updates, trained, PoolScore(0, (), 0.0, None)).blocks
        return self._opened(updates.level, sent, phase, number)

    def _opened(self, level: ClientLevel, sent: Blocks, phase: Phase, number: int) -> Tensor:
        """At client level: with the noise shares of as many others as are counted on, who have
        nothing to add themselves.
        """
        for other in range(1, level.honest):
            purpose = f"share of another/{phase}/{other}"
            stream = self._noise.stream(client=other, round=number, purpose=purpose)
            sent = sent + level.noised(level.absent(), stream)
        step = level.bound / level.levels
        return torch.cat([sent.shared, sent.pools[0]]).float() * step
