"""A client under example-level privacy: says what an answer would release, and answers with noised values only.

What it overrides is all that leaves a client: training, sketches, the choice of a pool. Nothing else is computed from its training
examples and sent: no losses, no counts of examples, no weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import PrivacyError
from secure_fl.federation.budget import digest_of
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.example_plan import ExamplePlan, choice_of, chooses_by_loss, chooses_in, plan_examples
from secure_fl.federation.messages import (
    CentreShare,
    EncoderUpdate,
    GiveCentre,
    GiveSketch,
    PoolScore,
    PoolUpdate,
    Reply,
    Request,
    ScorePools,
    TrainCandidate,
    TrainEncoder,
    TrainPool,
)
from secure_fl.federation.private_paths import TrainingPath, Views
from secure_fl.federation.release_box import ReleaseBox
from secure_fl.models.state import load_vector, to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.engine import PrivateSpec, PrivateTraining
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.private_sketch import PrivateSketch
from secure_fl.privacy.separable import check_rows_alone
from secure_fl.privacy.units import PrivacyUnit
from secure_fl.privacy.whole_path import Examples
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import embed, train_mode

_SKETCHES = {"centre": 0, "sketch": 1}
"""Rounds under which the two releases of a sketch are booked: each is made once a run."""


class PrivateClient(Client):
    """A participant whose examples are protected by its own noise, whoever reads what it sends.

    **Guarantee**: everything that depends on its training examples and leaves it was recorded by `releases` before, and is charged there.

    **Assumes**: the number of its examples is public (zero-out, replace-one), or a bound (add-remove).

    **Not covered**: its test examples, which are other examples: their accuracy is reported as it is, for the experimenter.
    """

    def __init__(self, data: ClientData, bench: Workbench, noise: NoiseSource, box: ReleaseBox, already: tuple[Charges, ...] = ((),)) -> None:
        """`already`: what earlier runs may have released of this client, a history each."""
        super().__init__(data, bench)
        self._noise, self._box, self._already = noise, box, already
        self._made: tuple[str, PrivateTraining[Views]] | None = None
        self._choices: dict[int, int | None] = {}

    @cached_property
    def plan(self) -> ExamplePlan:
        """What it will release, and with which noise."""
        labelled = len(self.data.train.with_labels()) if self.data.train.labelled else 0
        return plan_examples(self._blueprint, len(self.data.train), labelled, self._already)

    def releases(self, request: Request, position: int = 0) -> tuple[Release, ...]:
        match request:
            case TrainEncoder():
                return (self._release(request, "pretrain", request.round, "training", self._training(request, position).event),)
            case GiveCentre():
                return (self._release(request, "centre", _SKETCHES["centre"], "statistic", self._sketcher.events()[0]),)
            case GiveSketch():
                return (self._release(request, "sketch", _SKETCHES["sketch"], "statistic", self._sketcher.events()[-1]),)
            case TrainPool():
                made: list[Release] = []
                if self._chooses(request):
                    choice = self._release(request, "choice", request.round, "choice", self._choice.event(1))
                    made.append(replace(choice, key=self._choice_key(request.round)))
                if self._trains:
                    made.append(self._release(request, "cluster", request.round, "training", self._training(request, position).event))
                return tuple(made)
            case _:
                return ()

    def _answer(self, request: Request, position: int) -> Reply:
        if isinstance(request, TrainCandidate):
            remedy = 'set pools.start = "sketch", "pretrained" or "random"'
            raise PrivacyError("is not answered under privacy", field="request", value="TrainCandidate", remedy=remedy)
        return super()._answer(request, position)

    def _release(self, request: Request, phase: str, number: int, purpose: str, event: Event) -> Release:
        return Release(
            key=self._key(request, phase, number),
            phase=phase,
            round=number,
            purpose=purpose,
            unit=PrivacyUnit.EXAMPLE,
            subjects=(self.data.id,),
            event=event,
            basis="declared",
        )

    def _key(self, request: Request, phase: str, number: int) -> str:
        return f"{phase}/{number}/client-{self.data.id}/{digest_of(request)}"

    def _stream(self, request: Request, phase: str, number: int) -> NoiseStream:
        return self._noise.stream(client=self.data.id, round=number, purpose=f"{phase}/{digest_of(request)}")

    # Training

    def _training(self, request: TrainEncoder | TrainPool, position: int) -> PrivateTraining[Views]:
        """What answers a request, made once: the mechanism that is charged is the one that adds the noise."""
        phase: Literal["pretrain", "cluster"] = "pretrain" if isinstance(request, TrainEncoder) else "cluster"
        key = f"{self._key(request, phase, request.round)}/{position}"
        if self._made is None or self._made[0] != key:
            config = self._blueprint.config.pretrain if phase == "pretrain" else self._blueprint.config.pools
            steps = self.plan.pretrain if phase == "pretrain" else self.plan.pools
            assert steps is not None
            mechanism = TrainingPath(self._blueprint, phase, self.data.id, position).mechanism(steps.examples, steps.rate, self.plan.noise)
            spec = LocalSpec.at_round(config, request.round, config.rounds)
            self._made = (key, PrivateTraining(mechanism, PrivateSpec(steps.per_round, spec.lr, spec.momentum, spec.weight_decay)))
        return self._made[1]

    def _train(self, model: nn.Module, request: TrainEncoder | TrainPool, position: int) -> None:
        phase: Literal["pretrain", "cluster"] = "pretrain" if isinstance(request, TrainEncoder) else "cluster"
        path, training = TrainingPath(self._blueprint, phase, self.data.id, position), self._training(request, position)
        data = self.data.train.with_labels() if path.supervised else self.data.train
        train_mode(model, path.frozen)
        training.run(model, path.views_of(data.x, data.y), self._stream(request, phase, request.round))
        self._made = None

    def _train_encoder(self, request: TrainEncoder, position: int) -> EncoderUpdate:
        def make() -> dict[str, Tensor]:
            model = self._bench.encoder_projector
            load_vector(model, request.vector)
            self._train(model, request, position)
            return {"delta": to_vector(model) - request.vector}

        delta = self._box.once(self._key(request, "pretrain", request.round), make)["delta"]
        return EncoderUpdate(delta, 1.0, {})

    def _fit_pool(self, pools: PoolSet, choice: int, round_number: int, position: int) -> tuple[Tensor, Tensor, dict[str, float]]:
        request = self._asked

        def make() -> dict[str, Tensor]:
            model, layout = self._bench.pool_model, self._blueprint.layout
            layout.load(model, pools, choice)
            self._train(model, request, position)
            shared, pooled = layout.parts(model)
            return {"shared": shared - pools.shared, "pooled": pooled - pools.pooled[choice]}

        made = self._box.once(self._key(request, "cluster", round_number), make)
        return made["shared"], made["pooled"], {}

    def _train_pool(self, request: TrainPool, position: int) -> PoolUpdate:
        self._asked = request
        return replace(super()._train_pool(request, position), weight=1.0 if self._trains else 0.0)

    # Choosing

    @cached_property
    def _choice(self) -> PrivateChoice:
        """The mechanism of every choice: what it costs is asked of the one that chooses."""
        data = self._choosing_examples()
        return choice_of(self._blueprint.config, len(data.with_labels() if data.labelled else data))

    def _chooses(self, request: TrainPool) -> bool:
        """Whether it chooses anew in this round; otherwise it holds on to its last choice, or follows the sketch.

        There is one choice a round, whatever pools are shown: asked again, the client repeats itself and releases nothing.
        """
        config, number = self._blueprint.config, request.round
        if not chooses_by_loss(config) or request.forced or self._chosen(number) is not None:
            return False
        return chooses_in(config, number) or self._held(number) is None

    def _chosen(self, number: int) -> int | None:
        """The choice it made in a round, if it made one. Kept by the client, stored with its released results, and in no message."""
        if number not in self._choices:
            found = self._box.find(self._choice_key(number))
            self._choices[number] = None if found is None else int(found["choice"])
        return self._choices[number]

    def _held(self, number: int) -> int | None:
        """The newest choice that it made in round `number` or before."""
        made = (self._chosen(earlier) for earlier in range(number, -1, -1))
        return next((choice for choice in made if choice is not None), None)

    def _choice_key(self, number: int) -> str:
        return f"choice/{number}/client-{self.data.id}"

    def _score(self, request: ScorePools | TrainPool, position: int) -> PoolScore:
        """The private choice, and how the chosen pool does on test examples, which is for the experimenter."""
        choice = self._private_choice(request)
        model, task = self._bench.pool_model, self._blueprint.pool_task(self.data.id, position)
        self._blueprint.layout.load(model, request.pools, choice)
        test = task.score(model, self.data.test, self._seed("test"))
        return PoolScore(choice, (), test.loss, test.accuracy)

    def _private_choice(self, request: ScorePools | TrainPool) -> int:
        config = self._blueprint.config
        if not chooses_by_loss(config) or (isinstance(request, TrainPool) and request.forced):
            return self._guided(request.guide) if request.guide is not None else 0
        if isinstance(request, ScorePools):
            return self._held(config.pools.rounds - 1) or 0
        if self._chooses(request):

            def make() -> dict[str, Tensor]:
                return {"choice": torch.tensor(self._exponential(request))}

            self._choices[request.round] = int(self._box.once(self._choice_key(request.round), make, reused=True)["choice"])
        return self._held(request.round) or 0

    def _exponential(self, request: TrainPool) -> int:
        pools, data, choice = request.pools, self._choosing_examples(), self._choice
        data = data.with_labels() if data.labelled else data
        scores = [bounded_score(self._losses(pools, index, data), choice.bound, choice.size) for index in range(len(pools))]
        return choice.choose(scores, self._stream(request, "choice", request.round), self._held(request.round - 1))

    def _losses(self, pools: PoolSet, index: int, data: Dataset) -> Tensor:
        """Cross-entropy of each example under one pool, `[N]`, in eval mode."""
        if self._blueprint.config.pools.task != "supervised":
            remedy = 'set pools.start = "sketch", whose choice is free, or pools.task = "supervised"'
            raise PrivacyError("a self-supervised score is no mean of bounded losses", field="privacy.choice", value="exponential", remedy=remedy)
        if not data.labelled:
            return torch.zeros(0)
        model = self._bench.pool_model
        self._blueprint.layout.load(model, pools, index)
        check_rows_alone(model.eval(), Examples(self._blueprint.shape, self._blueprint.compute.device).noise(4), quick=True)
        return functional.cross_entropy(embed(model, data.x, self._blueprint.compute), data.y, reduction="none")

    # Sketches

    @property
    def _sketcher(self) -> PrivateSketch:
        """Settings of this client's sketch: without labels it releases a plain one, which costs the same."""
        settings = self._blueprint.private_sketch
        assert settings is not None
        return settings if self._sketches else replace(settings, classes=0, dimensions=settings.part)

    def _features(self) -> Tensor:
        encoder = self._bench.kept_encoder.eval()
        check_rows_alone(encoder, Examples(self._blueprint.shape, self._blueprint.compute.device).noise(4), quick=True)
        return embed(encoder, self.data.train.x, self._blueprint.compute)

    def _own_sketch(self) -> Tensor:
        """The released sketch, and never another."""
        if self._sketch is None:
            remedy = "resume the run with its private-results folder in place"
            raise PrivacyError("has not been released", field="sketch", value=f"client {self.data.id}", remedy=remedy)
        return self._sketch

    def _give_centre(self, request: GiveCentre) -> CentreShare:
        def make() -> dict[str, Tensor]:
            stream = self._stream(request, "centre", _SKETCHES["centre"])
            return {"mean": self._sketcher.release_mean(self._features(), len(self.data.train), stream)}

        return CentreShare(self._box.once(self._key(request, "centre", _SKETCHES["centre"]), make, reused=True)["mean"])

    def _prepare_sketch(self, request: GiveSketch) -> None:
        sketcher = self._sketcher

        def make() -> dict[str, Tensor]:
            labels = self.data.train.y if sketcher.classes else None
            stream = self._stream(request, "sketch", _SKETCHES["sketch"])
            return {"sketch": sketcher.release(self._features(), labels, len(self.data.train), request.centre, stream)}

        made = self._box.once(self._key(request, "sketch", _SKETCHES["sketch"]), make, reused=True)["sketch"].float()
        self._sketch = functional.pad(made, (0, self._blueprint.sketch_width - len(made)))
