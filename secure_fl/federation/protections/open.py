"""A client whose examples nothing hides but the sum: it trains and chooses as it is told."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from secure_fl.federation.asks import (
    Ask,
    Guide,
    PoolScore,
    ScorePools,
    SumFeatures,
    SumMoments,
    TrainCandidate,
    TrainEncoder,
    TrainPool,
)
from secure_fl.federation.local.local import Local
from secure_fl.federation.protections.protection import Protection, Trained
from secure_fl.models.state import load_vector, to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.pools.selection import best_pool, clearly_lower
from secure_fl.privacy.ledger import Release
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import Score


class Open(Protection):
    """A client without differential privacy. Whoever reads a client's summand reads its update; the
    secure sum is what hides it.
    """

    def __init__(self, local: Local) -> None:
        self._local, self._factory = local, local.factory

    def releases(self, ask: Ask, position: int) -> tuple[Release, ...]:
        return ()

    def train_encoder(self, ask: TrainEncoder, position: int) -> Trained:
        local, settings = self._local, self._local.facts.config.pretrain
        model = local.bench.encoder_projector
        load_vector(model, ask.vector)
        spec = LocalSpec.at_round(settings, ask.round, settings.rounds)
        task = self._factory.pretrain_task(local.data.id, position, ask.difference)
        report = task.fit(model, local.data.train, spec, local.seed("pretrain", ask.round))
        return Trained(
            to_vector(model) - ask.vector,
            weight=local.weight(len(local.data.train), settings.weights),
            terms=report.terms,
            exploded=report.exploded,
        )

    def sum_examples(self, ask: SumFeatures | SumMoments) -> Tensor:
        return self._local.moments.total(ask)

    def choose(self, ask: ScorePools | TrainPool, position: int) -> PoolScore:
        local, pools, guide = self._local, ask.pools, ask.guide
        if isinstance(ask, TrainPool) and ask.forced and guide is not None:
            return local.tested(pools, local.sketch.nearest(guide), position)
        model, task = local.bench.pool_model, self._factory.pool_task(local.data.id, position)
        scores: list[Score] = []
        for index in range(len(pools)):
            self._factory.pool_layout.load(model, pools, index)
            scores.append(task.score(model, local.choosing_examples, local.seed("choose")))
        losses = tuple(score.loss for score in scores)
        return local.tested(pools, self._best(scores, guide), position, losses)

    def train_pool(self, ask: TrainPool, choice: int, position: int) -> Trained:
        return self._trained(ask.pools, choice, ask.round, position)

    def train_candidate(self, ask: TrainCandidate, position: int) -> Trained:
        return self._trained(ask.pools, 0, 0, position)

    def _trained(self, pools: PoolSet, choice: int, round_number: int, position: int) -> Trained:
        local, settings = self._local, self._local.facts.config.pools
        model, layout = local.bench.pool_model, self._factory.pool_layout
        if not local.trains:
            nothing = torch.zeros_like(pools.pooled[0]), torch.zeros_like(pools.shared)
            return Trained(*nothing, weight=0.0)
        layout.load(model, pools, choice)
        spec = LocalSpec.at_round(settings, round_number, settings.rounds)
        task, seed = self._factory.pool_task(local.data.id, position), round_number
        report = task.fit(model, local.data.train, spec, local.seed("pool", seed))
        shared, pooled = layout.parts(model)
        return Trained(
            pooled - pools.pooled[choice],
            shared - pools.shared,
            local.weight(len(local.pool_examples), settings.weights),
            report.terms,
            report.exploded,
        )

    def _best(self, scores: list[Score], guide: Guide | None) -> int:
        """The pool that does best by loss or accuracy; where no pool has a loss, that of the
        nearest sketch centre, or else the one whose predictions are surest.
        """
        found = self._local.found(guide)
        if any(isfinite(score.loss) for score in scores):
            losses, accuracies = [s.loss for s in scores], [s.accuracy for s in scores]
            best = best_pool(losses, accuracies, self._local.facts.config.pools.select_by)
            return best if found is None else self._kept_or(best, scores, found)
        if found is not None:
            return found
        unsure = [float("nan") if s.entropy is None else s.entropy for s in scores]
        return best_pool(unsure, [], "loss")

    def _kept_or(self, best: int, scores: list[Score], found: int) -> int:
        """Pool `best`, or `found` where `best` is not clearly better. Judged anew each time, from
        the client's own examples.
        """
        config = self._local.facts.config.pools
        both = (scores[best], scores[found])
        by_accuracy = config.select_by == "accuracy"
        other, own = (each.errors if by_accuracy else each.losses for each in both)
        if best == found or config.keep_margin == 0 or other is None or own is None:
            return best
        return best if clearly_lower(other, own, config.keep_margin) else found
