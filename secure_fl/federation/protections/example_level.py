"""A client under example-level privacy: it answers with noised values only.

Training, the choice of a pool and the released sketch are all that leaves a client. Nothing else is
computed from its training examples and sent: no losses, no counts of examples, no weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.data.dataset import Dataset
from secure_fl.errors import PrivacyError
from secure_fl.federation.asks import (
    Ask,
    GiveCentre,
    GiveSketch,
    PoolScore,
    ScorePools,
    SumFeatures,
    SumMoments,
    TrainEncoder,
    Training,
    TrainPool,
    VoteCentre,
    step_of,
)
from secure_fl.federation.factory.example_plan import (
    ExamplePlan,
    choice_of,
    chooses_by_loss,
    chooses_in,
    plan_examples,
)
from secure_fl.federation.factory.private_paths import TrainingPath, Views
from secure_fl.federation.local.local import Local
from secure_fl.federation.protections.protection import Protection, Trained
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.models.state import load_vector, to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.engine import PrivateSpec, PrivateTraining
from secure_fl.privacy.example_sums import ExampleSum
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.rows_alone import check_rows_alone
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import embed, train_mode


class ExampleLevel(Protection):
    """A participant whose examples are protected by its own noise, whoever reads what it sends.

    **Guarantee**: everything that depends on its training examples and leaves it was recorded by
    `releases` before, and is charged there.

    **Assumes**: the number of its examples is public (zero-out, replace-one), or a bound
    (add-remove).

    **Not covered**: its test examples, which are other examples: their accuracy is reported as it
    is, for the experimenter.
    """

    # All whose answers have noise: training, choices with it, sums over examples, sketches and what
    # is made from them.
    answered = Training | SumFeatures | SumMoments | GiveCentre | GiveSketch | VoteCentre
    refusal = (
        "is not answered under privacy",
        'set pools.start = "sketch", "pretrained" or "random"',
    )

    def __init__(
        self, local: Local, releasing: Releasing, already: tuple[Charges, ...] = ((),)
    ) -> None:
        """`already`: what earlier runs may have released of this client, a history each."""
        self._local, self._factory = local, local.factory
        self._releasing, self._already = releasing, already
        self._made: tuple[str, PrivateTraining[Views]] | None = None
        self._choices: dict[int, int | None] = {}

    @cached_property
    def plan(self) -> ExamplePlan:
        """What the client will release over the run, and with which noise."""
        train = self._local.data.train
        return plan_examples(self._factory, len(train), train.labels, self._already)

    def releases(self, ask: Ask, position: int) -> tuple[Release, ...]:
        made: list[Release] = []
        if isinstance(ask, TrainPool) and self._chooses(ask):
            charged = self._choice.event(1)
            choice = self._releasing.release(ask, "choice", ask.round, "choice", charged)
            made.append(replace(choice, key=self._choice_key(ask.round)))
        if isinstance(ask, SumFeatures | SumMoments):
            number, sums = self._sums(ask)
            event = sums.event()
            made.append(self._releasing.release(ask, "pretrain", number, "statistic", event))
        encodes = isinstance(ask, TrainEncoder)
        if isinstance(ask, Training) and (encodes or self._local.trains):
            steps = self._training(ask, position).event
            made.append(self._releasing.release(ask, step_of(ask), ask.round, "training", steps))
        return tuple(made)

    # Training

    def train_encoder(self, ask: TrainEncoder, position: int) -> Trained:
        def make() -> dict[str, Tensor]:
            model = self._local.bench.encoder_projector
            load_vector(model, ask.vector)
            self._train(model, ask, position)
            return {"delta": to_vector(model) - ask.vector}

        return Trained(self._releasing.once(ask, "pretrain", ask.round, make)["delta"])

    def sum_examples(self, ask: SumFeatures | SumMoments) -> Tensor:
        """The client's sum and its share of the noise, stored before it is sent. The sum that is
        charged is the one that adds the noise.
        """
        number, sums = self._sums(ask)

        def make() -> dict[str, Tensor]:
            stream = self._releasing.stream(ask, "pretrain", number)
            return {"sum": sums.noised(self._local.moments.total(ask), stream)}

        return self._releasing.once(ask, "pretrain", number, make)["sum"]

    def _sums(self, ask: SumFeatures | SumMoments) -> tuple[int, ExampleSum]:
        """The round of pre-training that asks this, once a run, and the sum that it makes."""
        number = int(isinstance(ask, SumMoments))
        return number, self._factory.view_moments.sums[number]

    def train_pool(self, ask: TrainPool, choice: int, position: int) -> Trained:
        pools = ask.pools
        if not self._local.trains:
            nothing = torch.zeros_like(pools.pooled[0]), torch.zeros_like(pools.shared)
            return Trained(*nothing, weight=0.0)

        def make() -> dict[str, Tensor]:
            model, layout = self._local.bench.pool_model, self._factory.pool_layout
            layout.load(model, pools, choice)
            self._train(model, ask, position)
            shared, pooled = layout.parts(model)
            return {"shared": shared - pools.shared, "pooled": pooled - pools.pooled[choice]}

        made = self._releasing.once(ask, "cluster", ask.round, make)
        return Trained(made["pooled"], made["shared"])

    def _training(self, ask: Training, position: int) -> PrivateTraining[Views]:
        """What answers an ask, made once. The mechanism that is charged is the one that adds the
        noise.
        """
        step, config = step_of(ask), self._local.facts.config
        key = f"{self._releasing.key(ask, step, ask.round)}/{position}"
        if self._made is None or self._made[0] != key:
            settings = config.pretrain if step == "pretrain" else config.pools
            steps = self.plan.pretrain if step == "pretrain" else self.plan.pools
            assert steps is not None
            path = self._path(ask, position)
            mechanism = path.mechanism(steps.examples, steps.rate, self.plan.noise)
            spec = LocalSpec.at_round(settings, ask.round, settings.rounds)
            private = PrivateSpec(steps.per_round, spec.lr, spec.momentum, spec.weight_decay)
            self._made = (key, PrivateTraining(mechanism, private))
        return self._made[1]

    def _train(self, model: nn.Module, ask: Training, position: int) -> None:
        step, client, path = step_of(ask), self._local.data, self._path(ask, position)
        training = self._training(ask, position)
        data = client.train.with_labels() if path.supervised else client.train
        train_mode(model, path.frozen)
        stream = self._releasing.stream(ask, step, ask.round)
        training.run(model, path.views_of(data.x, data.y), stream)
        self._made = None

    def _path(self, ask: Training, position: int) -> TrainingPath:
        """How examples are read to answer an ask."""
        difference = ask.difference if isinstance(ask, TrainEncoder) else None
        who = (self._local.data.id, position, ask.round)
        return TrainingPath(self._factory, step_of(ask), *who, difference)

    # Choosing

    def choose(self, ask: ScorePools | TrainPool, position: int) -> PoolScore:
        """The private choice; how the pool does on test examples is for the experimenter."""
        return self._local.tested(ask.pools, self._private_choice(ask), position)

    @property
    def _choosing_examples(self) -> Dataset:
        data = self._local.choosing_examples
        return data.with_labels() if data.labelled else data

    @cached_property
    def _choice(self) -> PrivateChoice:
        """The mechanism of every choice: what it costs is asked of the one that chooses."""
        return choice_of(self._local.facts.config, len(self._choosing_examples))

    def _chooses(self, ask: TrainPool) -> bool:
        """Whether it chooses anew; otherwise it holds on to its last choice, or follows the sketch.

        There is one choice a round, whatever pools are shown: asked again, the client repeats
        itself and releases nothing.
        """
        config, number = self._local.facts.config, ask.round
        if not chooses_by_loss(config) or ask.forced or self._chosen(number) is not None:
            return False
        return chooses_in(config, number) or self._held(number) is None

    def _chosen(self, number: int) -> int | None:
        """The choice it made in a round, if it made one. Kept by the client, stored with its
        released results, and in no message.
        """
        if number not in self._choices:
            found = self._releasing.box.find(self._choice_key(number))
            self._choices[number] = None if found is None else int(found["choice"])
        return self._choices[number]

    def _held(self, number: int) -> int | None:
        """The newest choice that it made in round `number` or before."""
        made = (self._chosen(earlier) for earlier in range(number, -1, -1))
        return next((choice for choice in made if choice is not None), self._local.before)

    def _choice_key(self, number: int) -> str:
        return f"choice/{number}/client-{self._local.data.id}"

    def _private_choice(self, ask: ScorePools | TrainPool) -> int:
        config = self._local.facts.config
        if not chooses_by_loss(config) or (isinstance(ask, TrainPool) and ask.forced):
            found = self._local.found(ask.guide)
            if found is None and ask.guide is not None:
                return self._local.sketch.nearest(ask.guide)
            return found or 0
        if isinstance(ask, ScorePools):
            return self._held(config.pools.rounds - 1) or 0
        if self._chooses(ask):

            def make() -> dict[str, Tensor]:
                return {"choice": torch.tensor(self._exponential(ask))}

            made = self._releasing.box.once(self._choice_key(ask.round), make, reused=True)
            self._choices[ask.round] = int(made["choice"])
        return self._held(ask.round) or 0

    def _exponential(self, ask: TrainPool) -> int:
        pools, data, choice = ask.pools, self._choosing_examples, self._choice
        losses = (self._losses(pools, index, data) for index in range(len(pools)))
        scores = [bounded_score(each, choice.bound, choice.size) for each in losses]
        previous = self._held(ask.round - 1)
        if previous is None and ask.guide is not None:
            previous = self._local.found(ask.guide)
        stream = self._releasing.stream(ask, "choice", ask.round)
        return choice.choose(scores, stream, previous)

    def _losses(self, pools: PoolSet, index: int, data: Dataset) -> Tensor:
        """Cross-entropy of each example under one pool, `[N]`, in eval mode."""
        if self._local.facts.config.pools.task != "supervised":
            problem = "a self-supervised score is no mean of bounded losses"
            remedy = 'set pools.start = "sketch", or pools.task = "supervised"'
            raise PrivacyError(problem, "privacy.choice", "exponential", remedy)
        if not data.labelled:
            return torch.zeros(0)
        model = self._local.bench.pool_model
        self._factory.pool_layout.load(model, pools, index)
        check_rows_alone(model.eval(), self._local.bench.noise(), quick=True)
        outputs = embed(model, data.x, self._factory.compute)
        return functional.cross_entropy(outputs, data.y, reduction="none")
