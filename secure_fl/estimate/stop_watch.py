"""How long a client and a sum take: timed on noise, a few batches and a few clients, and scaled."""

from __future__ import annotations

import time
from dataclasses import replace
from math import ceil

import torch

from secure_fl.config import FederationConfig, OptimiserConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.estimate.sum_costs import (
    SMALL_COHORT,
    SMALL_WIDTH,
    block_shape,
    made_up_round,
    small_parties,
)
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import (
    GiveSketch,
    KeepEncoder,
    Request,
    ScorePools,
    TrainPool,
    VoteCentre,
)
from secure_fl.federation.phase import Call
from secure_fl.models.state import to_vector
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.round_plan import BlockShape
from secure_fl.training.representation import measure_representation

_MOST_FIELDS = 150_000
"""Fields of a pool that a sum is timed with; wider ones are scaled."""
_SLOW = 2.0
"""Seconds after which one batch is enough to scale from."""
_MEASURED = 256


class StopWatch:
    """Times a client of noise, and sums of a few clients."""

    def __init__(self, blueprint: Blueprint, clients: list[ClientData]) -> None:
        self._clients, self._blueprint = clients, blueprint
        privacy = blueprint.config.privacy
        trial = blueprint.config.model_copy(
            update={"privacy": privacy.model_copy(update={"noise": privacy.noise or 1.0})}
        )
        self._trial = replace(blueprint, config=trial)

    def client(self, request: Request, settings: OptimiserConfig) -> float:
        """Seconds that a client takes to answer, the mean over the clients: linear in
        its examples.
        """
        batch = settings.batch_size
        sizes = [ceil(len(client.train) / batch) for client in self._clients]
        batches = sum(sizes) / len(sizes)
        largest = max(len(client.train) for client in self._clients)
        if largest <= 2 * batch:
            examples = round(
                sum(len(client.train) for client in self._clients) / len(self._clients)
            )
            self._answered(request, max(2, examples))
            return self._answered(request, max(2, examples))
        if (
            self._answered(request, batch) > _SLOW
            or (first := self._answered(request, batch)) > _SLOW
        ):
            return batches * self._answered(request, batch)
        more = min(3, max(2, round(batches)))
        each = max(0.0, (self._answered(request, more * batch) - first) / (more - 1))
        return max(first, first + (batches - 1) * each)

    def once(self, request: Request) -> float:
        """Seconds for an answer that takes the same whatever a client holds."""
        self._answered(request, 8)
        return self._answered(request, 8)

    def measuring(self) -> float:
        """Seconds for the metrics of the representation, before and after pre-training."""
        blueprint, config = self._blueprint, self._blueprint.config.evaluate
        train, test = (
            sum(len(getattr(client, name)) for client in self._clients)
            for name in ("train", "test")
        )

        def took(most: int) -> tuple[float, int]:
            few = [max(4, min(most, count)) for count in (train, test)]
            bank, judged = (self._noise(count) for count in few)
            begun = time.perf_counter()
            measure_representation(
                blueprint.encoder(),
                bank,
                judged,
                config,
                augment=blueprint.augment,
                compute=blueprint.compute,
                seed=0,
            )
            return time.perf_counter() - begun, sum(few)

        took(8)  # what is imported and compiled at the first call
        (least, few), (more, many) = took(8), took(_MEASURED)
        return 2 * (least + max(0.0, more - least) / max(1, many - few) * (train + test - few))

    def of_sum(self, config: FederationConfig, blocks: Blocks, clients: int) -> float:
        """Seconds of one protected sum, all parties: what a client adds, by the fields, and the
        rest of the protocol.
        """
        real, few = block_shape(blocks), min(clients, 4)
        width = min(real.width, max(SMALL_WIDTH, _MOST_FIELDS // real.pools))
        small = replace(real, width=SMALL_WIDTH, shared=min(real.shared, SMALL_WIDTH))
        wide = replace(real, width=width, shared=min(real.shared, _MOST_FIELDS))
        if few < 3:
            return 0.0
        rest = self._sum(config, small, many := min(clients, SMALL_COHORT)) * (clients / many) ** 2
        fields = (real.width * real.pools + real.shared) / (wide.width * wide.pools + wide.shared)
        each = max(0.0, self._sum(config, wide, few) - self._sum(config, small, few)) / few
        return rest + each * fields * clients

    def _sum(self, config: FederationConfig, shape: BlockShape, clients: int) -> float:
        """Seconds of a round under keys that are there already."""
        parties = small_parties(config, clients)
        made_up_round(
            config,
            replace(shape, width=SMALL_WIDTH, shared=min(shape.shared, SMALL_WIDTH)),
            clients,
            parties,
        )
        begun = time.perf_counter()
        made_up_round(config, shape, clients, parties, 1)
        return time.perf_counter() - begun

    def _answered(self, request: Request, examples: int) -> float:
        train = self._noise(examples)
        tested = round(sum(len(client.test) for client in self._clients) / len(self._clients))
        data = ClientData(0, train, train, self._noise(max(1, tested)), None, "noise")
        engine = EmbeddedEngine([data], self._trial)
        if self._trial.needs_kept_encoder:
            for _ in engine.ask(Call((0,), KeepEncoder(to_vector(self._trial.encoder())))):
                pass
        if isinstance(request, VoteCentre):
            released = self._trial.private_sketch
            centre = (
                torch.zeros(self._trial.sketch.inputs)
                if released is not None and released.centring
                else None
            )
            for _ in engine.ask(Call((0,), GiveSketch(centre))):
                pass
        if isinstance(request, TrainPool | ScorePools):
            request = replace(request, guide=None)
        begun = time.perf_counter()
        for _ in engine.ask(Call((0,), request)):
            pass
        return time.perf_counter() - begun

    def _noise(self, count: int) -> Dataset:
        """Examples of nobody's, with every class among the labels."""
        classes = max(1, self._blueprint.classes)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, *self._blueprint.shape, generator=generator)
        labels = torch.arange(count) % classes if self._blueprint.classes else None
        return Dataset.from_arrays(
            x, labels, classes=classes if self._blueprint.classes else None, name="noise"
        )
