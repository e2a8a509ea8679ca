"""How long a client and a sum take: timed on noise, a few batches and a few clients, and scaled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

import torch

from secure_fl.config import FederationConfig, OptimiserConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.estimate.small_federation import Size, SmallFederation
from secure_fl.estimate.sum_costs import SMALL_WIDTH, narrow
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Step
from secure_fl.models.state import to_vector
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.training.fit import LocalSpec
from secure_fl.training.representation import measure_representation

_MOST_FIELDS = 150_000
"""Fields of a pool that a sum is timed with; wider ones are scaled."""
_MANY = 8
"""Clients of the sum that shows how long the protocol takes, beside its vectors."""
_SLOW = 2.0
"""Seconds after which one batch is enough to scale from."""
_MEASURED = 256
"""Examples, of each part, on which the metrics of the representation are timed."""


class StopWatch:
    """Times a client of noise, and sums of a few clients."""

    def __init__(self, factory: Factory, clients: list[ClientData]) -> None:
        self._clients, self._factory, self._facts = clients, factory, factory.facts
        privacy = factory.facts.config.privacy
        trial = factory.facts.config.model_copy(
            update={"privacy": privacy.model_copy(update={"noise": privacy.noise or 1.0})}
        )
        self._trial = replace(factory, facts=replace(factory.facts, config=trial))

    def answer(self, step: Step, place: int, number: int) -> float:
        """Seconds that a client takes to answer in a round of a step, the mean over the clients."""
        config, at = self._facts.config, Place(place, number)
        if step.name in ("centre", "sketch"):  # what a client holds makes little difference
            self._answered(at, 8)
            return self._answered(at, 8)
        settings = config.pretrain if step.name == "pretrain" else config.pools
        return self._scaled(settings, lambda examples: self._answered(at, examples))

    def scored(self) -> float:
        """Seconds that a client takes to choose and test a pool."""
        settings = self._facts.config.pools
        return self._scaled(settings, lambda examples: self._answered(None, examples))

    def at_a_server(self) -> float:
        """Seconds of a round of pre-training at a server, as a client of mean size would take."""
        pretrain = self._facts.config.pretrain
        task = self._factory.pretrain_task(None)
        spec = LocalSpec.at_round(pretrain, 0, pretrain.rounds)

        def trained(examples: int) -> float:
            model = self._factory.encoder_projector()
            data = self._noise(examples)
            begun = time.perf_counter()
            task.fit(model, data, spec, 0)
            return time.perf_counter() - begun

        return self._scaled(pretrain, trained)

    def _scaled(self, settings: OptimiserConfig, took: Callable[[int], float]) -> float:
        """Seconds of something that is linear in a client's examples."""
        batch = settings.batch_size
        sizes = [ceil(len(client.train) / batch) for client in self._clients]
        batches = sum(sizes) / len(sizes)
        largest = max(len(client.train) for client in self._clients)
        if largest <= 2 * batch:
            mean = sum(len(client.train) for client in self._clients) / len(self._clients)
            took(examples := max(2, round(mean)))
            return took(examples)
        if took(batch) > _SLOW or (first := took(batch)) > _SLOW:
            return batches * took(batch)
        more = min(3, max(2, round(batches)))
        each = max(0.0, (took(more * batch) - first) / (more - 1))
        return max(first, first + (batches - 1) * each)

    def measuring(self) -> float:
        """Seconds for the metrics of the representation, before and after pre-training."""
        factory, config = self._factory, self._facts.config.evaluate
        train, test = (
            sum(len(getattr(client, name)) for client in self._clients)
            for name in ("train", "test")
        )

        def took(most: int) -> tuple[float, int]:
            few = [max(4, min(most, count)) for count in (train, test)]
            bank, judged = (self._noise(count) for count in few)
            begun = time.perf_counter()
            measure_representation(
                factory.encoder(),
                bank,
                judged,
                config,
                augment=factory.augment,
                compute=factory.compute,
                seed=0,
            )
            return time.perf_counter() - begun, sum(few)

        took(8)  # what is imported and compiled at the first call
        (least, few), (more, many) = took(8), took(_MEASURED)
        return 2 * (least + max(0.0, more - least) / max(1, many - few) * (train + test - few))

    def of_sum(self, config: FederationConfig, form: SumForm, clients: int) -> float:
        """Seconds of one sum, all parties: what a client adds, by fields, and the protocol."""
        few, real = min(clients, 4), form.shape
        width = min(real.width, max(SMALL_WIDTH, _MOST_FIELDS // real.pools))
        small = narrow(real)
        wide = replace(real, width=width, shared=min(real.shared, _MOST_FIELDS))
        narrower, wider = self._sums(config, form, [small, small, wide], few)[1:]
        each = narrower / few
        if (many := min(clients, _MANY)) > few:
            of_many = self._sums(config, form, [small], many)[0] / many
            slope = max(0.0, of_many - each) / (many - few)
            each = of_many + slope * (clients - many)
        fields = (real.width * real.pools + real.shared) / (wide.width * wide.pools + wide.shared)
        return clients * (each + max(0.0, wider - narrower) / few * fields)

    def _sums(
        self, config: FederationConfig, form: SumForm, shapes: Sequence[BlockShape], clients: int
    ) -> list[float]:
        """Seconds of rounds of these shapes; before the first, keys are made as well."""
        opening, seconds = replace(form.opening, bound=1), list[float]()
        small = SmallFederation(config, Size(1, clients), shapes, opening)
        for _ in shapes:
            begun = time.perf_counter()
            small.run()
            seconds.append(time.perf_counter() - begun)
        return seconds

    def _answered(self, place: Place | None, examples: int) -> float:
        """Seconds of one client's answer at a place; without one, of its choice of a pool."""
        train = self._noise(examples)
        tested = round(sum(len(client.test) for client in self._clients) / len(self._clients))
        data = ClientData(0, train, train, self._noise(max(1, tested)), None, "noise")
        program = StepProgram(self._trial, steps_of(self._trial))
        engine, whole = EmbeddedEngine([data], program), sample_state(self._trial)
        state = whole.with_values(without=["guide.mean", "guide.centres"]).at(place or whole.place)
        if place is not None and program.step(place).name == "sketch":
            engine.recall(state)
        begun = time.perf_counter()
        if place is None:
            list(engine.scored(Evaluate(self._trial), state))
        else:
            engine.clients[0].answer(state, 0)
        return time.perf_counter() - begun

    def _noise(self, count: int) -> Dataset:
        """Examples of nobody's, with every class among the labels."""
        classes = max(1, self._facts.classes)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, *self._facts.shape, generator=generator)
        labels = torch.arange(count) % classes if self._facts.classes else None
        return Dataset.from_arrays(
            x, labels, classes=classes if self._facts.classes else None, name="noise"
        )


def sample_state(factory: Factory) -> State:
    """A state with all that any step of a run asks by, holding zeros."""
    pools, tensors = factory.facts.config.pools, {"model": to_vector(factory.encoder_projector())}
    tensors["encoder"] = to_vector(factory.encoder())
    if factory.facts.config.pretrain.sums_moments:
        tensors["moments.centre"] = torch.zeros(factory.features, dtype=torch.float64)
    if pools.enabled:
        shared, pooled = factory.pool_layout.parts(factory.pool_model(0))
        tensors |= {"pools.shared": shared, "pools.pooled": pooled.repeat(pools.count, 1)}
    if pools.enabled and pools.start == "sketch":
        width, released = factory.sketch.width, factory.sketch.released
        if released is not None and released.centring:
            tensors["sketch.public_centre"] = torch.zeros(factory.sketch.inputs)
        tensors |= {
            "guide.mean": torch.zeros(width),
            "guide.centres": torch.zeros(pools.count, width),
        }
        tensors["sketch.mean"] = torch.zeros(width)
        tensors["sketch.centres"] = torch.zeros(pools.sketch_starts, pools.count, width)
    return State(Place(0, 0), tensors)
