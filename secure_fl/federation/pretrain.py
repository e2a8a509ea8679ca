"""Phase one: an encoder from unlabelled data, by FedAvg or on one unlabelled set."""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.data.dataset import Dataset
from secure_fl.errors import TrainingError
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import BlockUpdate, EncoderUpdate, KeepEncoder, Kept, Reply, TrainEncoder
from secure_fl.federation.phase import Call, Metrics, Phase, ServerState, exploded, mean_terms
from secure_fl.federation.summing import Summed
from secure_fl.federation.sums import BlockSum
from secure_fl.models.state import load_vector, to_vector
from secure_fl.seeds import derive_seed
from secure_fl.training.fit import LocalSpec


def set_encoder(blueprint: Blueprint, state: ServerState) -> None:
    """Write the encoder half of the model under training to `state.tensors["encoder"]`."""
    model = blueprint.encoder_projector()
    load_vector(model, state.tensors["model"])
    state.tensors["encoder"] = to_vector(model.encoder)


class Pretrain(Phase):
    """FedAvg of encoder and projector, each client under its own separation.

    **What differences of its sums show.** A client missing from one round is the difference of two sums only where the others send the same
    in both. Updates do not: every round starts from another model. A number of examples would, so protected runs count clients alike; with
    `weights = "examples"` a missing client's number follows, and the run says so. Running statistics of batch normalisation nearly would: they
    drift with the model only, so a missing client's means and variances of activations follow roughly; `model.norm = "group"` has none.
    """

    name = "pretrain"

    @property
    def rounds(self) -> int:
        return self.blueprint.config.pretrain.rounds

    def open(self) -> Call:
        if "model" not in self.state.tensors:
            self.state.tensors["model"] = to_vector(self.blueprint.encoder_projector())
        vector = self.state.tensors["model"]
        self._sum = BlockSum(1, len(vector))
        self._summed: Summed | None = None
        self._watch()
        return Call(self.sampled(self.blueprint.config.pretrain), TrainEncoder(self.state.round, vector, self.bound))

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, BlockUpdate | EncoderUpdate)
        self._observe(client, reply)
        if isinstance(reply, EncoderUpdate):
            self._sum.add(0, reply.delta, reply.weight)

    def take(self, summed: Summed) -> None:
        self._summed = summed

    def close(self) -> Metrics:
        if self._summed is not None:
            _, means = self.means(self._summed)
            self.state.tensors["model"] = (self.state.tensors["model"].double() + means[0]).float()
        else:
            self.state.tensors["model"] = self._sum.moved(self.state.tensors["model"][None])[0]
        set_encoder(self.blueprint, self.state)
        terms = mean_terms(self._terms)
        weights = self.blueprint.objective(0).weights
        loss = sum(weights[name] * value for name, value in terms.items()) if terms else None
        return {"loss": loss, "terms": terms, **self.watched_metrics}


class CentralPretrain(Phase):
    """The same on one unlabelled set at the server: no clients, no separation."""

    name = "pretrain"

    def __init__(self, blueprint: Blueprint, state: ServerState, groups: Sequence[int | None], data: Dataset) -> None:
        super().__init__(blueprint, state, groups)
        self._data = data

    @property
    def rounds(self) -> int:
        return self.blueprint.config.pretrain.rounds

    def open(self) -> Call:
        return Call((), None)

    def add(self, client: int, reply: Reply) -> None:
        raise AssertionError("centralized pre-training asks nobody")

    def close(self) -> Metrics:
        config, model = self.blueprint.config, self.blueprint.encoder_projector()
        if "model" in self.state.tensors:
            load_vector(model, self.state.tensors["model"])
        task = self.blueprint.pretrain_task(None)
        spec = LocalSpec.at_round(config.pretrain, self.state.round, config.pretrain.rounds)
        try:
            report = task.fit(model, self._data, spec, derive_seed(config.seed, "central", self.state.round))
        except TrainingError as error:
            raise error.within(f"server, phase pretrain, round {self.state.round + 1}") from error
        self.state.tensors["model"] = to_vector(model)
        set_encoder(self.blueprint, self.state)
        loss = sum(task.objective.weights[name] * value for name, value in report.terms.items())
        return {"loss": loss, "terms": report.terms, **exploded({} if report.exploded is None else {"server": report.exploded})}


class HandOut(Phase):
    """Give every client the pre-trained encoder to keep."""

    name = "hand_out"

    @property
    def rounds(self) -> int:
        return 1

    def open(self) -> Call:
        return Call(self.everyone, KeepEncoder(self.state.tensors["encoder"]))

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, Kept)

    def close(self) -> Metrics:
        return {}
