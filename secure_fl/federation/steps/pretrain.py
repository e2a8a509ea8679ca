"""An encoder from unlabelled data, by federated averaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from secure_fl.config import PretrainConfig
from secure_fl.federation.asks import TrainEncoder
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.observe import Seen, of_steps, of_training
from secure_fl.federation.run_folder.metrics import Metrics, Separated
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer, UpdateStep
from secure_fl.federation.summing import Summed
from secure_fl.models.state import load_vector, to_vector

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


_DIFFERENCE = "pretrain.difference"
"""Fact of the state: how far the updates of the last round differed, where weights follow it."""


class Pretrain(UpdateStep):
    """FedAvg of encoder and projector, each client under its own separation.

    The weights of the separation may follow how far clients differ (`objectives.adaptive`), as the
    state says it: their sketches, where these came before, else the last round's sum of updates.
    Both were opened anyway, so that nothing more is released. Updates say it anew in every round,
    of the model and not of the data alone; so they are asked first where they are not noised.

    **What differences of its sums show.** A client missing from one round is the difference of two
    sums only where the others send the same in both. Updates do not: every round starts from
    another model. A number of examples would, so protected runs count clients alike; with `weights
    = "examples"` a missing client's number follows, and the run says so. Running statistics of
    batch normalisation nearly would: they drift with the model only, so a missing client's means
    and variances of activations follow roughly; `model.norm = "group"` has none.
    """

    name = "pretrain"

    @property
    def settings(self) -> PretrainConfig:
        return self.facts.config.pretrain

    def enter(self, state: State) -> State:
        if "model" in state.tensors:
            return state
        return state.with_values({"model": to_vector(self.factory.encoder_projector())})

    def ask(self, state: State) -> TrainEncoder:
        model, bound = state.tensors["model"], self.bound(state)
        return TrainEncoder(state.place.round, model, bound, self._difference(state))

    def answer(self, ask: TrainEncoder, client: Client, position: int) -> Answer:
        trained = client.protection.train_encoder(ask, position)
        return client.protection.sent(ask, self.updates, trained)

    def apply(self, state: State, opened: Summed) -> State:
        moved = self.updates.moved(opened, self.bound(state))
        model = (state.tensors["model"].double() + moved.pooled[0]).float()
        tensors = {"model": model}
        if state.place.round + 1 >= self.rounds:
            tensors |= encoder_of(self.factory, model)
        return state.with_values(tensors, self.next_bound(moved) | self._measured(opened))

    def _difference(self, state: State) -> float | None:
        """How far clients differ, where weights follow it and it is known."""
        if not self.facts.config.objective.adaptive:
            return None
        fact = "sketch.difference" if self.facts.config.sketches_first else _DIFFERENCE
        found: float | None = state.facts.get(fact)
        return found

    def _measured(self, opened: Summed) -> dict[str, float]:
        """What a sum of updates says of it, as a fact of the state; none of a sum that tells
        nothing, which leaves it as it was.
        """
        told = self.updates.differences(opened).differences or (None,)
        adaptive = self.facts.config.objective.adaptive
        return {_DIFFERENCE: told[0]} if adaptive and told[0] is not None else {}

    def monitor(self, state: State, opened: Summed) -> Metrics:
        return (
            self.updates.group_metrics(opened)
            | self.updates.differences(opened)
            | Metrics(separation=self._separation(state))
        )

    def _separation(self, state: State) -> Separated | None:
        """With which weights this round separates clients, and why; None where they are fixed."""
        if not self.facts.config.objective.adaptive:
            return None
        return Separated.of(self.facts.config.objective, self._difference(state))

    def observe(
        self, state: State, opened: Summed, seen: Mapping[int, Seen], groups: Sequence[int | None]
    ) -> Metrics:
        weights = self.factory.objective(0, difference=self._difference(state)).weights
        return of_training(seen, weights) | of_steps(seen) | self.monitor(state, opened)


def encoder_of(factory: Factory, model: Tensor) -> dict[str, Tensor]:
    """The encoder's half of the model that is pre-trained, under its name in the state."""
    module = factory.encoder_projector()
    load_vector(module, model)
    return {"encoder": to_vector(module.encoder)}
