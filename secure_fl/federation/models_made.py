"""The models that a program ends with, as modules on the processor."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from secure_fl.federation.asks import Guide
from secure_fl.federation.bench import Workbench
from secure_fl.federation.factory import Factory
from secure_fl.federation.pools import get_guide, get_pools
from secure_fl.federation.state import State
from secure_fl.models.state import count_parameters, load_vector
from secure_fl.pools.pool_set import PoolModel


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
