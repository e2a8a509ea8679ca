"""A client under example-level privacy: says what an answer would release, and answers with noised values only.

What it overrides, and its released sketch, is all that leaves a client: training, and the choice of a pool. Nothing else is computed from its
training examples and sent: no losses, no counts of examples, no weights.
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
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.example_plan import ExamplePlan, choice_of, chooses_by_loss, chooses_in, plan_examples
from secure_fl.federation.messages import (
    EncoderUpdate,
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
from secure_fl.federation.releasing import Releasing
from secure_fl.federation.sketches import ClientSketch
from secure_fl.models.state import load_vector, to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.engine import PrivateSpec, PrivateTraining
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.rows_alone import check_rows_alone
from secure_fl.training.fit import FitReport, LocalSpec
from secure_fl.training.tasks import embed, train_mode


class PrivateClient(Client):
    """A participant whose examples are protected by its own noise, whoever reads what it sends.

    **Guarantee**: everything that depends on its training examples and leaves it was recorded by `releases` before, and is charged there.

    **Assumes**: the number of its examples is public (zero-out, replace-one), or a bound (add-remove).

    **Not covered**: its test examples, which are other examples: their accuracy is reported as it is, for the experimenter.
    """

    def __init__(
        self, data: ClientData, bench: Workbench, sketch: ClientSketch | None, releasing: Releasing, already: tuple[Charges, ...] = ((),)
    ) -> None:
        """`already`: what earlier runs may have released of this client, a history each."""
        super().__init__(data, bench, sketch)
        self._releasing, self._already = releasing, already
        self._made: tuple[str, PrivateTraining[Views]] | None = None
        self._choices: dict[int, int | None] = {}

    @cached_property
    def plan(self) -> ExamplePlan:
        """What it will release, and with which noise."""
        return plan_examples(self._blueprint, len(self.data.train), self.data.train.labels, self._already)

    def releases(self, request: Request, position: int = 0) -> tuple[Release, ...]:
        match request:
            case TrainEncoder():
                return (self._releasing.release(request, "pretrain", request.round, "training", self._training(request, position).event),)
            case TrainPool():
                made: list[Release] = []
                if self._chooses(request):
                    choice = self._releasing.release(request, "choice", request.round, "choice", self._choice.event(1))
                    made.append(replace(choice, key=self._choice_key(request.round)))
                if self._trains:
                    made.append(self._releasing.release(request, "cluster", request.round, "training", self._training(request, position).event))
                return tuple(made)
            case _:
                return super().releases(request, position)

    def _answer(self, request: Request, position: int) -> Reply:
        if isinstance(request, TrainCandidate):
            remedy = 'set pools.start = "sketch", "pretrained" or "random"'
            raise PrivacyError("is not answered under privacy", field="request", value="TrainCandidate", remedy=remedy)
        return super()._answer(request, position)

    # Training

    def _training(self, request: TrainEncoder | TrainPool, position: int) -> PrivateTraining[Views]:
        """What answers a request, made once: the mechanism that is charged is the one that adds the noise."""
        phase: Literal["pretrain", "cluster"] = "pretrain" if isinstance(request, TrainEncoder) else "cluster"
        key = f"{self._releasing.key(request, phase, request.round)}/{position}"
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
        training.run(model, path.views_of(data.x, data.y), self._releasing.stream(request, phase, request.round))
        self._made = None

    def _train_encoder(self, request: TrainEncoder, position: int) -> EncoderUpdate:
        def make() -> dict[str, Tensor]:
            model = self._bench.encoder_projector
            load_vector(model, request.vector)
            self._train(model, request, position)
            return {"delta": to_vector(model) - request.vector}

        delta = self._releasing.once(request, "pretrain", request.round, make)["delta"]
        return EncoderUpdate(delta, 1.0, {})

    def _fit_pool(self, pools: PoolSet, choice: int, round_number: int, position: int) -> tuple[Tensor, Tensor, FitReport]:
        request = self._asked

        def make() -> dict[str, Tensor]:
            model, layout = self._bench.pool_model, self._blueprint.layout
            layout.load(model, pools, choice)
            self._train(model, request, position)
            shared, pooled = layout.parts(model)
            return {"shared": shared - pools.shared, "pooled": pooled - pools.pooled[choice]}

        made = self._releasing.once(request, "cluster", round_number, make)
        return made["shared"], made["pooled"], FitReport({})

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
            found = self._releasing.box.find(self._choice_key(number))
            self._choices[number] = None if found is None else int(found["choice"])
        return self._choices[number]

    def _held(self, number: int) -> int | None:
        """The newest choice that it made in round `number` or before."""
        made = (self._chosen(earlier) for earlier in range(number, -1, -1))
        return next((choice for choice in made if choice is not None), self.before)

    def _choice_key(self, number: int) -> str:
        return f"choice/{number}/client-{self.data.id}"

    def _score(self, request: ScorePools | TrainPool, position: int) -> PoolScore:
        """The private choice, and how the chosen pool does on test examples, which is for the experimenter."""
        choice = self._private_choice(request)
        model, task = self._bench.pool_model, self._blueprint.pool_task(self.data.id, position)
        self._blueprint.layout.load(model, request.pools, choice)
        test = task.score(model, self.data.test, self._seed("test"))
        return PoolScore(choice, (), test.loss, test.accuracy, test.balanced_accuracy)

    def _private_choice(self, request: ScorePools | TrainPool) -> int:
        config = self._blueprint.config
        if not chooses_by_loss(config) or (isinstance(request, TrainPool) and request.forced):
            found = self._found(request.guide)
            if found is None and request.guide is not None:
                return self.sketch.nearest(request.guide)
            return found or 0
        if isinstance(request, ScorePools):
            return self._held(config.pools.rounds - 1) or 0
        if self._chooses(request):

            def make() -> dict[str, Tensor]:
                return {"choice": torch.tensor(self._exponential(request))}

            self._choices[request.round] = int(self._releasing.box.once(self._choice_key(request.round), make, reused=True)["choice"])
        return self._held(request.round) or 0

    def _exponential(self, request: TrainPool) -> int:
        pools, data, choice = request.pools, self._choosing_examples(), self._choice
        data = data.with_labels() if data.labelled else data
        scores = [bounded_score(self._losses(pools, index, data), choice.bound, choice.size) for index in range(len(pools))]
        previous = self._held(request.round - 1)
        if previous is None and request.guide is not None:
            previous = self._found(request.guide)
        return choice.choose(scores, self._releasing.stream(request, "choice", request.round), previous)

    def _losses(self, pools: PoolSet, index: int, data: Dataset) -> Tensor:
        """Cross-entropy of each example under one pool, `[N]`, in eval mode."""
        if self._blueprint.config.pools.task != "supervised":
            remedy = 'set pools.start = "sketch", whose choice is free, or pools.task = "supervised"'
            raise PrivacyError("a self-supervised score is no mean of bounded losses", field="privacy.choice", value="exponential", remedy=remedy)
        if not data.labelled:
            return torch.zeros(0)
        model = self._bench.pool_model
        self._blueprint.layout.load(model, pools, index)
        check_rows_alone(model.eval(), self._bench.noise(), quick=True)
        return functional.cross_entropy(embed(model, data.x, self._blueprint.compute), data.y, reduction="none")
