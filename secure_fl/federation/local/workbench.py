"""Modules that clients compute with, shared by clients of one process, so memory does not grow with
their number; and the models that a program ends with.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from secure_fl.federation.asks import Guide
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.state import State
from secure_fl.federation.steps.pools import get_guide, get_pools
from secure_fl.models.heads import EncoderProjector
from secure_fl.models.state import count_parameters, integer_buffers, load_vector, set_buffers
from secure_fl.pools.pool_set import PoolModel
from secure_fl.privacy.rows_alone import check_rows_alone
from secure_fl.privacy.views_apart import Examples

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Workbench:
    """Modules that asks load their vectors into, and the pre-trained encoder of the replica."""

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.kept: Tensor | None = None
        """The vector of the encoder that clients keep."""
        self._checked: Tensor | None = None
        self._made: list[tuple[nn.Module, dict[str, Tensor]]] = []

    @cached_property
    def encoder_projector(self) -> EncoderProjector:
        """The model that is pre-trained: an encoder and its projector."""
        return self._remembered(self.factory.encoder_projector())

    @cached_property
    def pool_model(self) -> PoolModel:
        """One model for all pools, loaded with one after the other."""
        return self._remembered(self.factory.pool_model(0))

    @cached_property
    def kept_encoder(self) -> nn.Module:
        """The pre-trained encoder that clients keep."""
        return self._begun(self.factory.encoder())

    @cached_property
    def view_features(self) -> nn.Module:
        """The fixed map of view moments, of which nothing is learned."""
        return self.factory.view_features()

    def _remembered(self, module: ModuleT) -> ModuleT:
        self._made.append((module, integer_buffers(module)))
        return self._begun(module)

    def _begun(self, module: ModuleT) -> ModuleT:
        """What a model makes of the first rows that it sees, and keeps, is made of noise. Of a
        client's examples it would reach the other clients.
        """
        factory = self.factory
        if factory.facts.config.privacy.unit == "example" or factory.sketch.released is not None:
            training = module.training
            with torch.no_grad():
                module.eval()(self.noise())
            module.train(training)
        return module

    def noise(self) -> Tensor:
        """Four rows in the examples' shape, of nobody's data."""
        return Examples(self.factory.facts.shape, self.factory.compute.device).noise(4)

    def restart(self) -> None:
        """Put integer buffers back to what they were made with. No client's batch count reaches
        another.
        """
        for module, buffers in self._made:
            set_buffers(module, buffers)

    def keep(self, vector: Tensor) -> None:
        """Take in the pre-trained encoder; pools with a frozen encoder get it too."""
        if self.kept is vector:
            return
        self.kept = vector
        load_vector(self.kept_encoder, vector)
        if self.factory.facts.config.pools.encoder == "frozen":
            self.pool_model.encoder = copy.deepcopy(self.kept_encoder).requires_grad_(False)

    def check_kept_encoder(self) -> None:
        """Refuse a kept encoder whose embedding of an example depends on other examples. A sketch's
        noise would not cover them. Raises PrivacyError: as `check_rows_alone`, in eval mode, in
        which embeddings are made.
        """
        if self._checked is not self.kept:
            check_rows_alone(self.kept_encoder.eval(), self.noise(), quick=True)
            self._checked = self.kept


@dataclass(frozen=True)
class ModelsMade:
    """Encoder and pools of a final state.

    Attributes:
        pools: one model a pool, in eval mode; none where the run has no pools.
        guide: the groups that sketches found, if they did.
        centre: what released sketches were centred by, `[F]`, where there are such.
    """

    encoder: nn.Module = field(repr=False)
    pools: list[PoolModel] = field(repr=False)
    guide: Guide | None
    centre: Tensor | None = field(repr=False)

    @classmethod
    def of(cls, factory: Factory, state: State) -> ModelsMade:
        """The models in a state."""
        encoder = factory.encoder().cpu()
        load_vector(encoder, state.tensors["encoder"])
        pools = _pool_models(factory, state) if factory.facts.config.pools.enabled else []
        guide = get_guide(state) if pools else None
        return cls(encoder, pools, guide, state.tensors.get("sketch.public_centre"))

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of parameters, for a run's summary."""
        of_pool = count_parameters(self.pools[0]) if self.pools else 0
        return {"encoder_parameters": count_parameters(self.encoder), "pool_parameters": of_pool}


def _pool_models(factory: Factory, state: State) -> list[PoolModel]:
    pools, models = get_pools(state), list[PoolModel]()
    for k in range(len(pools)):
        bench = Workbench(factory)
        if factory.facts.config.pools.encoder == "frozen":
            bench.keep(state.tensors["encoder"])
        factory.pool_layout.load(bench.pool_model, pools, k)
        models.append(bench.pool_model.cpu().eval())
    return models
