"""Measuring the encoder after pre-training, in simulations, where all clients' data are in one place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from secure_fl.data.dataset import Dataset
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import Reply
from secure_fl.federation.phase import Call, Metrics, Phase, ServerState
from secure_fl.models.state import load_vector
from secure_fl.seeds import derive_seed
from secure_fl.training.representation import MEASURED_ON, measure_representation


class Measure(Phase):
    """The representation's metrics, before and after pre-training."""

    name = "measure"

    def __init__(self, blueprint: Blueprint, state: ServerState, groups: Sequence[int | None], train: Dataset, test: Dataset) -> None:
        super().__init__(blueprint, state, groups)
        self._train, self._test = train, test

    @property
    def rounds(self) -> int:
        return 1

    def open(self) -> Call:
        return Call((), None)

    def add(self, client: int, reply: Reply) -> None:
        raise AssertionError("measuring asks nobody")

    def close(self) -> Metrics:
        encoder = self.blueprint.encoder()
        initial = self._measured(encoder)
        load_vector(encoder, self.state.tensors["encoder"])
        return {"initial": initial, "pretrained": self._measured(encoder), "measured_on": MEASURED_ON}

    def _measured(self, encoder: nn.Module) -> dict[str, float]:
        blueprint = self.blueprint
        seed = derive_seed(blueprint.config.seed, "measure")
        return measure_representation(
            encoder, self._train, self._test, blueprint.config.evaluate, augment=blueprint.augment, compute=blueprint.compute, seed=seed
        )
