"""What comes before a federation's program: the encoder that it begins with.

A server that pre-trains on a set of its own does so before any client is asked; clients get the
result with the initial state.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from secure_fl.data.dataset import Dataset
from secure_fl.errors import TrainingError
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.steps.pretrain import encoder_of
from secure_fl.federation.whole_run.extension import CENTRAL_ROUNDS
from secure_fl.models.state import load_vector, to_vector
from secure_fl.seeds import derive_seed
from secure_fl.training.fit import LocalSpec


class Prologue:
    """What comes before the program's first step: the encoder that it begins with.

    Args:
        factory: of the federation.
        data: the set of `pretrain.mode = "centralized"`.
        load: the encoder of the run that `pretrain.mode = "load"` names.
    """

    def __init__(
        self, factory: Factory, data: Dataset | None, load: Callable[[], nn.Module]
    ) -> None:
        self._factory, self._data, self._load = factory, data, load

    def initial(self) -> dict[str, Tensor]:
        """The tensors of the state that the program begins with: a loaded encoder or a random one;
        none where one will be pre-trained.
        """
        mode = self._factory.facts.config.pretrain.mode
        if mode in ("federated", "centralized"):
            return {}
        return {"encoder": to_vector(self._load() if mode == "load" else self._factory.encoder())}

    @property
    def rounds(self) -> int:
        """How many rounds the server trains by itself."""
        pretrain = self._factory.facts.config.pretrain
        return pretrain.rounds if pretrain.mode == "centralized" else 0

    def finished(self, state: State) -> int:
        """How many of the server's rounds were done when a state was kept."""
        if "encoder" in state.tensors:
            return self.rounds
        return int(state.facts.get(CENTRAL_ROUNDS, 0))

    def advanced(self, state: State) -> tuple[State, Metrics]:
        """The state after one more round, and what to record of it. It is pre-training as clients
        do it, of one set and without separation. Raises TrainingError: a loss is not finite.
        """
        assert self._data is not None
        factory, number = self._factory, self.finished(state)
        config, model = factory.facts.config, factory.encoder_projector()
        if "model" in state.tensors:
            load_vector(model, state.tensors["model"])
        task = factory.pretrain_task(None)
        spec = LocalSpec.at_round(config.pretrain, number, self.rounds)
        try:
            report = task.fit(model, self._data, spec, derive_seed(config.seed, "central", number))
        except TrainingError as error:
            raise error.within(f"server, phase pretrain, round {number + 1}") from error
        vector = to_vector(model)
        encoder = encoder_of(factory, vector) if number + 1 >= self.rounds else {}
        moved = state.with_values({"model": vector, **encoder}, {CENTRAL_ROUNDS: number + 1})
        weights = task.objective.weights
        loss = sum(weights[name] * value for name, value in report.terms.items())
        steps = {} if report.exploded is None else {"server": report.exploded}
        return moved, Metrics(loss=loss, terms=report.terms, exploded=steps or None)
