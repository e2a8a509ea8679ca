"""One client: answers each request from its own examples. Keeps nothing between requests but the pre-trained encoder."""

from __future__ import annotations

import copy
from functools import cached_property
from math import isfinite
from typing import TypeVar

import torch
from torch import Tensor, nn

from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import ConfigError, TrainingError
from secure_fl.federation.block_replies import in_blocks
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import (
    Candidate,
    EncoderUpdate,
    GiveCentre,
    GiveSketch,
    Guide,
    KeepEncoder,
    Kept,
    PoolScore,
    PoolUpdate,
    Reply,
    Request,
    ScorePools,
    TrainCandidate,
    TrainEncoder,
    TrainPool,
    VoteCentre,
)
from secure_fl.federation.sketches import ClientSketch
from secure_fl.models.heads import EncoderProjector
from secure_fl.models.state import integer_buffers, load_vector, set_buffers, to_vector
from secure_fl.pools.pool_set import PoolModel, PoolSet
from secure_fl.pools.selection import best_pool, clearly_lower
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.rows_alone import check_rows_alone
from secure_fl.privacy.whole_path import Examples
from secure_fl.seeds import derive_seed
from secure_fl.training.fit import FitReport, LocalSpec
from secure_fl.training.tasks import Score

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Workbench:
    """Modules that requests load their vectors into. Clients of one process share one, so memory does not grow with them."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.kept: Tensor | None = None
        """The vector of the encoder that clients keep."""
        self._checked: Tensor | None = None
        self._made: list[tuple[nn.Module, dict[str, Tensor]]] = []

    @cached_property
    def encoder_projector(self) -> EncoderProjector:
        """For pre-training."""
        return self._remembered(self.blueprint.encoder_projector())

    @cached_property
    def pool_model(self) -> PoolModel:
        """For pools."""
        return self._remembered(self.blueprint.pool_model(0))

    @cached_property
    def kept_encoder(self) -> nn.Module:
        """The pre-trained encoder that clients keep."""
        return self._begun(self.blueprint.encoder())

    def _remembered(self, module: ModuleT) -> ModuleT:
        self._made.append((module, integer_buffers(module)))
        return self._begun(module)

    def _begun(self, module: ModuleT) -> ModuleT:
        """What a model makes of the first rows that it sees, and keeps, is made of noise: of a client's examples it would reach the other clients."""
        if self.blueprint.config.privacy.unit == "example" or self.blueprint.private_sketch is not None:
            training = module.training
            with torch.no_grad():
                module.eval()(self.noise())
            module.train(training)
        return module

    def noise(self) -> Tensor:
        """Four rows in the examples' shape, of nobody's data."""
        return Examples(self.blueprint.shape, self.blueprint.compute.device).noise(4)

    def restart(self) -> None:
        """Put integer buffers back to what they were made with, so that no client's batch count reaches another."""
        for module, buffers in self._made:
            set_buffers(module, buffers)

    def keep(self, vector: Tensor) -> None:
        """Take in the pre-trained encoder; pools with a frozen encoder get it too."""
        if self.kept is vector:
            return
        self.kept = vector
        load_vector(self.kept_encoder, vector)
        if self.blueprint.config.pools.encoder == "frozen":
            self.pool_model.encoder = copy.deepcopy(self.kept_encoder).requires_grad_(False)

    def check_kept_encoder(self) -> None:
        """Refuse a kept encoder whose embedding of an example depends on other examples: a sketch's noise would not cover them.

        Raises:
            PrivacyError: as `check_rows_alone`, in eval mode, in which embeddings are made.
        """
        if self._checked is not self.kept:
            check_rows_alone(self.kept_encoder.eval(), self.noise(), quick=True)
            self._checked = self.kept


class Client:
    """A participant: its examples, its sketch where pools start from sketches, and answers to requests."""

    def __init__(self, data: ClientData, bench: Workbench, sketch: ClientSketch | None = None) -> None:
        self.data, self._bench, self._blueprint = data, bench, bench.blueprint
        self._own_sketch = sketch
        self.before: int | None = None
        """The pool that it used when the run had ended, where the run goes on for longer and its sketch is gone."""

    def releases(self, request: Request, position: int = 0) -> tuple[Release, ...]:
        """What answering would release with noise: here a sketch, or nothing."""
        return () if self._own_sketch is None else self._own_sketch.releases(request)

    @property
    def sketch(self) -> ClientSketch:
        """Its sketch.

        Raises:
            ConfigError: pools do not start from sketches.
        """
        if self._own_sketch is None:
            remedy = 'set pools.start = "sketch"'
            raise ConfigError("this run has no sketches", field="pools.start", value=self._blueprint.config.pools.start, remedy=remedy)
        return self._own_sketch

    def handle(self, request: Request, position: int = 0) -> Reply:
        """Answer one request; `position` is the client's place in this round's list. What will be summed goes out as blocks.

        Raises:
            TrainingError: training has diverged, or has nothing to train on; names the client, the phase and the round.
        """
        try:
            return in_blocks(self._answer(request, position), self._blueprint)
        except TrainingError as error:
            raise error.within(f"client {self.data.id}, {_asked(request)}") from error

    def _answer(self, request: Request, position: int) -> Reply:
        self._bench.restart()
        match request:
            case TrainEncoder():
                return self._train_encoder(request, position)
            case KeepEncoder(vector):
                self._bench.keep(vector)
                return Kept()
            case GiveCentre():
                return self.sketch.centre(request)
            case GiveSketch():
                return self.sketch.give(request)
            case VoteCentre():
                return self.sketch.vote(request)
            case ScorePools():
                return self._score(request, position)
            case TrainPool():
                return self._train_pool(request, position)
            case TrainCandidate():
                if not self._trains:
                    return Candidate(None)
                delta = self._fit_pool(request.pools, 0, round_number=0, position=position)[1]
                return Candidate(request.pools.pooled[0] + delta)

    def _train_encoder(self, request: TrainEncoder, position: int) -> EncoderUpdate:
        config, model = self._blueprint.config, self._bench.encoder_projector
        load_vector(model, request.vector)
        spec = LocalSpec.at_round(config.pretrain, request.round, config.pretrain.rounds)
        task = self._blueprint.pretrain_task(self.data.id, position)
        report = task.fit(model, self.data.train, spec, self._seed("pretrain", request.round))
        weight = float(len(self.data.train)) if config.pretrain.weights == "examples" else 1.0
        return EncoderUpdate(to_vector(model) - request.vector, weight, report.terms, report.exploded)

    def _score(self, request: ScorePools | TrainPool, position: int) -> PoolScore:
        """Choose a pool, and test it."""
        pools, guide, forced = request.pools, request.guide, isinstance(request, TrainPool) and request.forced
        model, task = self._bench.pool_model, self._blueprint.pool_task(self.data.id, position)
        scores: list[Score] = []
        if forced and guide is not None:
            choice = self.sketch.nearest(guide)
        else:
            for index in range(len(pools)):
                self._blueprint.layout.load(model, pools, index)
                scores.append(task.score(model, self._choosing_examples(), self._seed("choose")))
            choice = self._choose(scores, guide)
        self._blueprint.layout.load(model, pools, choice)
        test = task.score(model, self.data.test, self._seed("test"))
        return PoolScore(choice, tuple(score.loss for score in scores), test.loss, test.accuracy, test.balanced_accuracy)

    def _choosing_examples(self) -> Dataset:
        return self.data.validation if self._blueprint.config.pools.select_on == "validation" else self.data.train

    def _choose(self, scores: list[Score], guide: Guide | None) -> int:
        """By loss or accuracy; where no pool has a loss, by the nearest sketch centre, or else by the surest predictions."""
        if any(isfinite(score.loss) for score in scores):
            best = best_pool([s.loss for s in scores], [s.accuracy for s in scores], self._blueprint.config.pools.select_by)
            found = self._found(guide)
            return best if found is None else self._kept_or(best, scores, found)
        found = self._found(guide)
        if found is not None:
            return found
        return best_pool([float("nan") if s.entropy is None else s.entropy for s in scores], [], "loss")

    def _found(self, guide: Guide | None) -> int | None:
        """The pool of its group: by its sketch; where that is gone with a run that had ended, the pool that it used then, if it is known."""
        return self.before if guide is None or not self.sketch.there else self.sketch.nearest(guide)

    def _kept_or(self, best: int, scores: list[Score], found: int) -> int:
        """Pool `best`, or `found` where `best` is not clearly better. Judged anew each time, from the client's own examples."""
        config = self._blueprint.config.pools
        other, own = (score.errors if config.select_by == "accuracy" else score.losses for score in (scores[best], scores[found]))
        if best == found or config.keep_margin == 0 or other is None or own is None:
            return best
        return best if clearly_lower(other, own, config.keep_margin) else found

    @property
    def _trains(self) -> bool:
        """Whether the client has a batch of what its pool's task needs."""
        data = self.data.train
        return len(data if self._blueprint.config.pools.task == "self_supervised" else data.with_labels()) >= 2

    def _train_pool(self, request: TrainPool, position: int) -> PoolUpdate:
        pools = request.pools
        score = self._score(request, position)
        if not self._trains:
            return PoolUpdate(score, torch.zeros_like(pools.shared), torch.zeros_like(pools.pooled[0]), 0.0, {})
        shared, pooled, report = self._fit_pool(pools, score.choice, request.round, position)
        data = self.data.train if self._blueprint.config.pools.task == "self_supervised" else self.data.train.with_labels()
        weight = float(len(data)) if self._blueprint.config.pools.weights == "examples" else 1.0
        return PoolUpdate(score, shared, pooled, weight, report.terms, report.exploded)

    def _fit_pool(self, pools: PoolSet, choice: int, round_number: int, position: int) -> tuple[Tensor, Tensor, FitReport]:
        """Train pool `choice`; (change of the shared part, change of the pooled part, how it went)."""
        config, model, layout = self._blueprint.config.pools, self._bench.pool_model, self._blueprint.layout
        layout.load(model, pools, choice)
        spec = LocalSpec.at_round(config, round_number, config.rounds)
        report = self._blueprint.pool_task(self.data.id, position).fit(model, self.data.train, spec, self._seed("pool", round_number))
        shared, pooled = layout.parts(model)
        return shared - pools.shared, pooled - pools.pooled[choice], report

    def _seed(self, *purpose: str | int) -> int:
        return derive_seed(self._blueprint.config.seed, "client", self.data.id, *purpose)


def _asked(request: Request) -> str:
    """The phase and round of a request, for errors."""
    if isinstance(request, TrainEncoder | TrainPool):
        return f"phase {'pretrain' if isinstance(request, TrainEncoder) else 'cluster'}, round {request.round + 1}"
    return "phase farthest, round 1" if isinstance(request, TrainCandidate) else type(request).__name__
