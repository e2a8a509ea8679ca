"""What privacy costs in accuracy: every mechanism at ε of infinity, 8 and 2, between the random
encoder and ordinary training.

    python -m bench.private_accuracy [run] [--seeds 3]     measure what is missing (hours), then
                                                           write the page
    python -m bench.private_accuracy tune                  the learning rates tried on seed 99
    python -m bench.private_accuracy page                  write the tables into
                                                           docs/private-accuracy.md

One client holds the whole training set, so ε is that of its examples; in the federations of
`private_accuracy_clients` it is a client's. The encoder is trained without labels (or with them,
for the reference), frozen, and judged by a linear probe and kNN on test examples. Rows go to
`results/private_accuracy.csv` as they are measured; rows already there are not measured again.

Claims: ε covers the training of the encoder at δ = 1e-5 under zero-out. It does not cover the probe
and the kNN, which read the training labels in the clear, nor the learning rates, which were chosen
on another split of the same data. Noise comes from a seeded source, so that a row can be repeated:
what is measured is the mechanism, and nothing of a row is private.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import lru_cache
from itertools import count, islice
from math import inf, nan, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.harness import command_line, measure_missing
from bench.private_accuracy_cells import (
    CSV,
    DATA,
    DELTA,
    EMBEDDING,
    FEATURES,
    FEDERATED,
    HIDDEN,
    JUDGED,
    METHODS,
    MOMENTUM,
    OWNERS,
    RANDOM,
    SIDE,
    Cell,
    main_cells,
    tuning_cells,
)
from bench.private_accuracy_clients import federated
from bench.private_accuracy_gradients import SILENT, gradients
from bench.private_accuracy_page import write_page
from secure_fl.coins import Coins, Draws, Use
from secure_fl.config import DataConfig, ModelConfig, ObjectiveConfig, SourceConfig, ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources import load_source
from secure_fl.data.views import batch_views, build_views, two_views
from secure_fl.errors import TrainingError
from secure_fl.experimental.logit import LogitDP
from secure_fl.models.build import build_encoder, build_head, build_projector
from secure_fl.models.heads import Classifier, EncoderProjector
from secure_fl.objectives.build import build_objective, separates
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.objective import Objective, TwoViews
from secure_fl.objectives.separation import SeparationPlan
from secure_fl.objectives.unit_objectives import CrossEntropy
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_for
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.noise import NoiseSource
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.fit import LocalSpec, epochs, fit
from secure_fl.training.probes import linear_probe, weighted_knn
from secure_fl.training.tasks import embed


@lru_cache
def noise_multiplier(target: float, rate: float, steps: int) -> float:
    """The smallest σ whose ε is at most `target`; next to nothing for infinity, since no mechanism
    is without noise.
    """
    return (
        SILENT
        if target == inf
        else noise_for(target, DELTA, Adjacency.ZERO_OUT, sampling_rate=rate, steps=steps)
    )


# Data and models


@lru_cache(maxsize=2)
def load(data: str, seed: int, examples: int) -> tuple[Dataset, Dataset]:
    """Training and test examples; the split of MNIST-5k, which has none of its own, and the choice
    of examples follow the seed.
    """
    train, test = load_source(SourceConfig(name=DATA[data][0]), DataConfig(image_size=SIDE), seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, "private-accuracy", data))
    order = torch.randperm(len(train), generator=generator)
    return train.take(order[:examples]), train.take(order[examples:]) if test is None else test


def build(cell: Cell, train: Dataset) -> nn.Module:
    """The model that the method trains; its encoder is the same for all methods of one seed."""
    shape = tuple(train.x.shape[1:])
    known = METHODS.get(cell.method)
    config = ModelConfig(
        features=FEATURES,
        embedding=known.embedding if known else EMBEDDING,
        projector_hidden=HIDDEN,
        norm="group",
    )
    encoder = build_encoder(config, shape, derive_seed(cell.seed, "encoder"))
    if known and known.objective == "labels":
        return Classifier(
            encoder, build_head(FEATURES, train.classes, derive_seed(cell.seed, "head"))
        )
    return EncoderProjector(
        encoder, build_projector(config, encoder, shape, derive_seed(cell.seed, "projector"))
    )


def objective_of(method: str) -> Objective | CrossEntropy:
    """The loss of a method, the same for ordinary and private training."""
    name = METHODS[method].objective
    if name == "labels":
        return CrossEntropy()
    config = ObjectiveConfig(name=name, form="normalized", temperature=METHODS[method].temperature)
    separation = (
        SeparationPlan.draw(config, EMBEDDING, OWNERS, 0).of(0, 0) if separates(config) else None
    )
    return build_objective(config, separation)


# Training


def ordinary(model: nn.Module, cell: Cell, train: Dataset) -> None:
    """Shuffled batches, no clipping, no noise."""
    objective, augment = (
        objective_of(cell.method),
        build_views(ViewsConfig(), tuple(train.x.shape[1:])),
    )
    spec = LocalSpec(
        1 + cell.steps * cell.batch // (cell.examples - cell.batch),
        cell.batch,
        cell.lr,
        MOMENTUM,
        0.0,
    )
    batches = islice(
        epochs(cell.examples, spec, derive_seed(cell.seed, "order"), whole=True), cell.steps
    )
    step, coins = count(), Coins.public(derive_seed(cell.seed, "views"))

    def terms_of(index: Tensor) -> dict[str, Tensor]:
        x = train.x[index]
        if isinstance(objective, CrossEntropy):
            return {"loss": functional.cross_entropy(model(x), train.y[index])}
        if isinstance(objective, MaskedReconstruction):
            visible, hidden = objective.hide(x)
            return {
                "reconstruction": objective.target_losses(model(visible)[1][:, None], hidden).mean()
            }
        return objective.terms(
            TwoViews(*batch_views(augment, x, coins.at(next(step), index))), model
        )

    weights = {"loss": 1.0} if isinstance(objective, CrossEntropy) else objective.weights
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(cell.seed, "fit"))
        fit(model, batches, terms_of, weights, spec, Compute(torch.device("cpu")))


def mechanism_of(cell: Cell) -> Any:
    """The mechanism with its noise."""
    noise = noise_multiplier(
        inf if cell.level.startswith("no ") else float(cell.level), cell.rate, cell.steps
    )
    method = METHODS[cell.method]
    if method.mechanism == "logit":
        return LogitDP(
            method.temperature,
            cell.clip,
            noise,
            cell.rate,
            cell.examples,
            round(cell.batch + 6 * sqrt(cell.batch)),
        )
    sampling = Sampling(cell.examples, cell.rate, noise, cell.clip)
    return choose_mechanism(
        objective_of(cell.method),
        sampling,
        dimension=EMBEDDING,
        seed=0,
        mechanism=method.mechanism,
        pairs=method.pairs,
    )


def views_of(method: str, train: Dataset) -> Callable[[Tensor, Draws], Tensor | Labelled]:
    """From indices `[U, members]` and their coins to what the mechanism takes."""
    objective, augment = objective_of(method), build_views(ViewsConfig(), tuple(train.x.shape[1:]))

    def views(index: Tensor, draws: Draws) -> Tensor | Labelled:
        x = train.x[index.flatten()]
        if isinstance(objective, CrossEntropy):
            return Labelled(x[:, None], train.y[index.flatten()])
        if isinstance(objective, MaskedReconstruction):
            visible, hidden = objective.hide(x, draws.uniform(objective.places(x), Use.HIDING))
            return Labelled(visible[:, None], hidden)
        return torch.cat(
            [view.unflatten(0, tuple(index.shape)) for view in two_views(augment, x, draws)], 1
        )

    return views


def private(model: nn.Module, cell: Cell, train: Dataset) -> dict[str, object]:
    """Train with the mechanism; what it says of gradients is measured on the data as they are,
    before and after.
    """
    mechanism, views = mechanism_of(cell), views_of(cell.method, train)
    model.train()
    first = gradients(mechanism, model, views, cell.examples)
    stream = NoiseSource.for_tests(derive_seed(cell.seed, "noise", *cell.key)).stream(
        client=0, round=0, purpose="bench"
    )
    train_privately(model, views, mechanism, PrivateSpec(cell.steps, cell.lr, MOMENTUM), stream)
    last = gradients(mechanism, model, views, cell.examples)
    return {
        "noise": round(mechanism.noise_multiplier, 4),
        **{f"{k}_first": v for k, v in first.items()},
        **{f"{k}_last": v for k, v in last.items()},
    }


# Measuring

EMPTY = {
    "noise": "",
    "norm_first": "",
    "clipped_first": "",
    "signal_first": "",
    "norm_last": "",
    "clipped_last": "",
    "signal_last": "",
}


def measure(cell: Cell) -> dict[str, object]:
    """The row of one cell."""
    train, test = load(cell.data, cell.seed, cell.examples)
    model, began, found = build(cell, train), time.process_time(), dict[str, object]()
    judged: dict[str, object] = {"probe": nan, "knn": nan, "own": ""}
    try:
        if cell.method in FEDERATED:
            found = federated(model, cell, train)
        elif cell.level == "ordinary":
            ordinary(model, cell, train)
        elif cell.method != RANDOM:
            found = private(model, cell, train)
        seconds = time.process_time() - began
        judged = judge(model, train, test, cell.seed)
    except TrainingError:
        seconds = time.process_time() - began
    return {
        **{field.name: getattr(cell, field.name) for field in fields(cell)},
        **EMPTY,
        **found,
        **judged,
        "cpu_seconds": round(seconds, 1),
    }


def judge(model: Any, train: Dataset, test: Dataset, seed: int) -> dict[str, object]:
    """Accuracy of a probe on standardised features, of kNN, and of the model's own head where it
    has one.
    """
    compute, bank, test = (
        Compute(torch.device("cpu")),
        *(data.take(torch.arange(min(len(data), JUDGED))) for data in (train, test)),
    )
    h, g = embed(model.encoder, bank.x, compute), embed(model.encoder, test.x, compute)
    # Without this a probe of a fixed number of epochs would judge the features' scale, which
    # differs between encoders, as well.
    mean, deviation = h.mean(0), h.std(0).clamp_min(1e-6)
    standard = ((h - mean) / deviation, bank.y, (g - mean) / deviation, test.y)
    own: object = ""
    if isinstance(model, Classifier):
        with torch.no_grad():
            own = round(float((model.head(g).argmax(1) == test.y).double().mean()), 4)
    probe = linear_probe(*standard, classes=train.classes, epochs=100, seed=seed)
    return {
        "probe": round(probe, 4),
        "knn": round(weighted_knn(h, bank.y, g, test.y), 4),
        "own": own,
    }


def run(cells: Iterable[Cell]) -> Iterator[dict[str, object]]:
    """Measure the cells that have no row yet, in order."""
    return measure_missing(CSV, Cell, cells, measure, ["dp-accounting", "opacus"])


def main() -> None:
    """Command line."""
    arguments = command_line(__doc__, "run", "tune", "page").parse_args()
    torch.set_num_threads(1)
    cells = {"run": main_cells(arguments.seeds), "tune": tuning_cells(), "page": iter(())}[
        arguments.what
    ]
    for row in run(cells):
        print(
            *(
                row[name]
                for name in ("data", "method", "level", "seed", "lr", "probe", "knn", "cpu_seconds")
            ),
            sep=" | ",
            flush=True,
        )
    print(write_page())


if __name__ == "__main__":
    main()
