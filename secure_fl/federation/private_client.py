"""A client under example-level privacy: says what an answer would release, and answers with noised values only.

What it overrides, and its released sketch, is all that leaves a client: training, and the choice of a pool. Nothing else is computed from its
training examples and sent: no losses, no counts of examples, no weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.data.views import two_views
from secure_fl.errors import PrivacyError
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.example_plan import ExamplePlan, Steps, choice_event, chooses_by_loss, chooses_in, plan_examples
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
from secure_fl.federation.releasing import Releasing
from secure_fl.federation.sketches import ClientSketch
from secure_fl.models.state import load_vector, to_vector
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.units import CrossEntropy
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.mechanisms.mechanism import ExampleMechanism, Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.noise import NoiseStream
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import embed, train_mode


class PrivateClient(Client):
    """A participant whose examples are protected by its own noise, whoever reads what it sends.

    **Guarantee**: everything that depends on its training examples and leaves it was recorded by `releases` before, and is charged there.

    **Assumes**: the number of its examples is public (zero-out, replace-one), or a bound (add-remove).

    **Not covered**: its test examples, which are other examples: their accuracy is reported as it is, for the experimenter.
    """

    def __init__(
        self, data: ClientData, bench: Workbench, sketch: ClientSketch | None, releasing: Releasing, already: tuple[Event, ...] = ()
    ) -> None:
        """`already`: what earlier runs have released of this client."""
        super().__init__(data, bench, sketch)
        self._releasing, self._already = releasing, already
        self._choices: dict[int, int | None] = {}

    @cached_property
    def plan(self) -> ExamplePlan:
        """What it will release, and with which noise."""
        labelled = len(self.data.train.with_labels()) if self.data.train.labelled else 0
        return plan_examples(self._blueprint, len(self.data.train), labelled, self._already)

    def releases(self, request: Request) -> tuple[Release, ...]:
        match request:
            case TrainEncoder():
                return (self._releasing.release(request, "pretrain", request.round, "training", self._steps(self.plan.pretrain)),)
            case TrainPool():
                release, number = self._releasing.release, request.round
                trained = [release(request, "cluster", number, "training", self._steps(self.plan.pools))] if self._trains else []
                if not self._chooses(request):
                    return tuple(trained)
                choice = release(request, "choice", number, "choice", self._choice_event)
                return (replace(choice, key=self._choice_key(number)), *trained)
            case _:
                return super().releases(request)

    def _answer(self, request: Request, position: int) -> Reply:
        if isinstance(request, TrainCandidate):
            remedy = 'set pools.start = "sketch", "pretrained" or "random"'
            raise PrivacyError("is not answered under privacy", field="request", value="TrainCandidate", remedy=remedy)
        return super()._answer(request, position)

    # Training

    def _steps(self, steps: Steps | None) -> Event:
        assert steps is not None
        return steps.event(self.plan.noise)

    def _train_encoder(self, request: TrainEncoder, position: int) -> EncoderUpdate:
        def make() -> dict[str, Tensor]:
            config, model = self._blueprint.config.pretrain, self._bench.encoder_projector
            load_vector(model, request.vector)
            assert self.plan.pretrain is not None
            spec = LocalSpec.at_round(config, request.round, config.rounds)
            self._self_supervised(model, self.plan.pretrain, spec, position, self._releasing.stream(request, "pretrain", request.round), frozen=False)
            return {"delta": to_vector(model) - request.vector}

        delta = self._releasing.once(request, "pretrain", request.round, make)["delta"]
        return EncoderUpdate(delta, 1.0, {})

    def _fit_pool(self, pools: PoolSet, choice: int, round_number: int, position: int) -> tuple[Tensor, Tensor, dict[str, float]]:
        request = self._asked

        def make() -> dict[str, Tensor]:
            config, model, layout = self._blueprint.config.pools, self._bench.pool_model, self._blueprint.layout
            layout.load(model, pools, choice)
            assert self.plan.pools is not None
            spec, stream = LocalSpec.at_round(config, round_number, config.rounds), self._releasing.stream(request, "cluster", round_number)
            frozen = config.encoder == "frozen"
            if config.task == "supervised":
                self._supervised(model, self.plan.pools, spec, stream, frozen=frozen)
            else:
                self._self_supervised(model, self.plan.pools, spec, position, stream, frozen=frozen)
            shared, pooled = layout.parts(model)
            return {"shared": shared - pools.shared, "pooled": pooled - pools.pooled[choice]}

        made = self._releasing.once(request, "cluster", round_number, make)
        return made["shared"], made["pooled"], {}

    def _train_pool(self, request: TrainPool, position: int) -> PoolUpdate:
        self._asked = request
        return replace(super()._train_pool(request, position), weight=1.0 if self._trains else 0.0)

    def _self_supervised(self, model: nn.Module, steps: Steps, spec: LocalSpec, position: int, stream: NoiseStream, *, frozen: bool) -> None:
        privacy, x = self._blueprint.config.privacy, self.data.train.x
        objective = self._blueprint.objective(self.data.id, position)
        mechanism = choose_mechanism(
            objective,
            Sampling(len(x), steps.rate, self.plan.noise, privacy.clip),
            dimension=self._blueprint.embedding,
            seed=self._blueprint.feature_seed,
            mechanism=privacy.mechanism,
            group_size=privacy.group_size,
            statistic_share=privacy.statistic_share,
            pairs=privacy.features // 2,
        )

        def views_of(index: Tensor, seed: int) -> Tensor | Labelled:
            drawn = x[index.flatten()].to(self._blueprint.compute.device)
            if isinstance(objective, MaskedReconstruction):
                visible, hidden = objective.hide(drawn)
                return Labelled(visible[:, None], hidden)
            views = [view.unflatten(0, tuple(index.shape)) for view in two_views(self._blueprint.augment, drawn, seed)]
            return torch.cat(views, dim=1)

        train_mode(model, frozen)
        train_privately(model, views_of, cast("ExampleMechanism[Tensor | Labelled]", mechanism), _private_spec(steps, spec), stream)

    def _supervised(self, model: nn.Module, steps: Steps, spec: LocalSpec, stream: NoiseStream, *, frozen: bool) -> None:
        privacy, data, device = self._blueprint.config.privacy, self.data.train.with_labels(), self._blueprint.compute.device
        clip = AdaptiveBound(privacy.clip) if privacy.adaptive_clip else privacy.clip
        mechanism = PerExample(CrossEntropy(), len(data), steps.rate, self.plan.noise, clip)

        def views_of(index: Tensor, _: int) -> Labelled:
            drawn = index.flatten()
            return Labelled(data.x[drawn][:, None].to(device), data.y[drawn].to(device))

        train_mode(model, frozen)
        train_privately(model, views_of, mechanism, _private_spec(steps, spec), stream)

    # Choosing

    @property
    def _choice_event(self) -> Event:
        return choice_event(self._blueprint.config)

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
            return self.sketch.nearest(request.guide) if request.guide is not None else 0
        if isinstance(request, ScorePools):
            return self._held(config.pools.rounds - 1) or 0
        if self._chooses(request):

            def make() -> dict[str, Tensor]:
                return {"choice": torch.tensor(self._exponential(request))}

            self._choices[request.round] = int(self._releasing.box.once(self._choice_key(request.round), make, reused=True)["choice"])
        return self._held(request.round) or 0

    def _exponential(self, request: TrainPool) -> int:
        privacy, pools, data = self._blueprint.config.privacy, request.pools, self._choosing_examples()
        data = data.with_labels() if data.labelled else data
        mechanism = PrivateChoice(privacy.choice_epsilon, privacy.choice_bound, max(1, len(data)), privacy.choice_stay)
        scores = [bounded_score(self._losses(pools, index, data), privacy.choice_bound, max(1, len(data))) for index in range(len(pools))]
        return mechanism.choose(scores, self._releasing.stream(request, "choice", request.round), self._held(request.round - 1))

    def _losses(self, pools: PoolSet, index: int, data: Dataset) -> Tensor:
        """Cross-entropy of each example under one pool, `[N]`, in eval mode."""
        if self._blueprint.config.pools.task != "supervised":
            remedy = 'set pools.start = "sketch", whose choice is free, or pools.task = "supervised"'
            raise PrivacyError("a self-supervised score is no mean of bounded losses", field="privacy.choice", value="exponential", remedy=remedy)
        if not data.labelled:
            return torch.zeros(0)
        model = self._bench.pool_model
        self._blueprint.layout.load(model, pools, index)
        return functional.cross_entropy(embed(model, data.x, self._blueprint.compute), data.y, reduction="none")


def _private_spec(steps: Steps, spec: LocalSpec) -> PrivateSpec:
    return PrivateSpec(steps.per_round, spec.lr, spec.momentum, spec.weight_decay)
