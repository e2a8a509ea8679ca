"""What two choices inside private objectives are worth at one ε: random features that are drawn
anew in every step or stay, and the number of views of each member of a group.

    python -m bench.private_objectives [run] [--seeds 3]    measure what is missing (an hour)
    python -m bench.private_objectives page                 write the table into
                                                            docs/private-objectives.md

One client holds the training set; data, networks, batches, steps and learning rates are those of
`private_accuracy`, as are the claims. The encoder is frozen and judged by a linear probe and kNN on
all labels, and by a probe and the nearest neighbours on 5 labels a class (the mean of 5 draws of
them), which ask more of an encoder. Rows go to `results/private_objectives.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from bench.harness import ROOT, command_line, measure_missing, read_rows
from bench.pages import fill, sheet, spread
from bench.private_accuracy import build, load, noise_multiplier, objective_of
from bench.private_accuracy_cells import (
    ALIGN,
    BATCH,
    EMBEDDING,
    GROUPS,
    JUDGED,
    MOMENTUM,
    STEPS,
)
from bench.private_accuracy_cells import Cell as Run
from secure_fl.coins import Draws
from secure_fl.config import ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import build_views, own_views
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseSource
from secure_fl.seeds import derive_seed, generator_of
from secure_fl.training.device import Compute
from secure_fl.training.probes import linear_probe, weighted_knn
from secure_fl.training.tasks import embed

CSV = "private_objectives.csv"
STAY, ANEW, VIEWS = "features stay", "features drawn anew", "views of each member: "
GROUPED = (f"{VIEWS}2", f"{VIEWS}4")
FEATURE_PAIRS = 128
"""As in the configuration's default of 256 features."""
FEW, DRAWS = 5, 5
PAGE = ROOT / "docs" / "private-objectives.md"
MEASURES = ("probe", "knn", "p5", "k5")


@dataclass(frozen=True)
class Cell:
    """One training: data, what is compared, ε, seed."""

    data: str
    variant: str
    epsilon: str
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """As its columns stand in the CSV."""
        return tuple(str(value) for value in astuple(self))

    @property
    def views(self) -> int:
        """Of an example."""
        return int(self.variant.removeprefix(VIEWS)) if self.variant.startswith(VIEWS) else 2

    @property
    def run(self) -> Run:
        """The same training in `private_accuracy`."""
        method = GROUPS if self.variant.startswith(VIEWS) else ALIGN
        return Run.of(self.data, method, self.epsilon, self.seed)


class Staying(ReleasedStatistics):
    """A mechanism whose random features are those of step 0 in every step."""

    def at(self, step: int) -> Staying:
        return self


def cells(seeds: int) -> Iterator[Cell]:
    """All, the quick and telling ones first."""
    for epsilon in ("8", "2"):
        for data, names in (("MNIST-5k", (STAY, ANEW, *GROUPED)), ("Fashion-MNIST", (STAY, ANEW))):
            for seed in range(seeds):
                yield from (Cell(data, name, epsilon, seed) for name in names)
        for seed in range(seeds):
            yield Cell("MNIST-5k", f"{VIEWS}8", epsilon, seed)


def mechanism_of(cell: Cell) -> Any:
    """The mechanism, with the noise of 150 steps."""
    run = cell.run
    noise = noise_multiplier(float(cell.epsilon), run.rate, STEPS)
    made: Any = choose_mechanism(
        objective_of(run.method),  # type: ignore[arg-type]
        Sampling(run.examples, run.rate, noise, run.clip),
        dimension=EMBEDDING,
        seed=cell.seed,
        mechanism="group" if run.method == GROUPS else "auto",
        group_views=cell.views,
        pairs=FEATURE_PAIRS,
    )
    if cell.variant == STAY:
        settings = {each.name: getattr(made, each.name) for each in fields(ReleasedStatistics)}
        made = Staying(**settings)
    return made


def measure(cell: Cell) -> dict[str, object]:
    """The row of one cell."""
    run = cell.run
    train, test = load(cell.data, cell.seed, run.examples)
    model, augment = build(run, train), build_views(ViewsConfig(), tuple(train.x.shape[1:]))

    def views_of(index: Tensor, draws: Draws) -> Tensor:
        views = own_views(augment, train.x[index.flatten()], draws, cell.views)
        return torch.cat([view.unflatten(0, tuple(index.shape)) for view in views], 1)

    source = NoiseSource.for_tests(derive_seed(cell.seed, "noise", *cell.key))
    stream, began = source.stream(client=0, round=0, purpose="bench"), time.process_time()
    model.train()
    spec = PrivateSpec(STEPS, run.lr, MOMENTUM)
    train_privately(model, views_of, mechanism_of(cell), spec, stream)
    seconds = round(time.process_time() - began, 1)
    judged = judge(model, train, test, cell.seed)
    return {**vars(cell), "batch": BATCH, "lr": run.lr, **judged, "cpu_seconds": seconds}


def judge(model: Any, train: Dataset, test: Dataset, seed: int) -> dict[str, float]:
    """Accuracies on test examples, with all labels and with few."""
    compute = Compute(torch.device("cpu"))
    bank, test = (data.take(torch.arange(min(len(data), JUDGED))) for data in (train, test))
    h, g = embed(model.encoder, bank.x, compute), embed(model.encoder, test.x, compute)
    mean, deviation = h.mean(0), h.std(0).clamp_min(1e-6)
    standard, asked = (h - mean) / deviation, (g - mean) / deviation
    probe = partial(linear_probe, classes=train.classes, epochs=100, seed=seed)
    few = [_few(bank.y, train.classes, seed, draw) for draw in range(DRAWS)]
    found = {
        "probe": probe(standard, bank.y, asked, test.y),
        "knn": weighted_knn(h, bank.y, g, test.y),
        "p5": fmean(probe(standard[own], bank.y[own], asked, test.y) for own in few),
        "k5": fmean(weighted_knn(h[own], bank.y[own], g, test.y, k=FEW) for own in few),
    }
    return {name: round(value, 4) for name, value in found.items()}


def _few(labels: Tensor, classes: int, seed: int, draw: int) -> Tensor:
    """Places of five examples of each class."""
    order = torch.randperm(len(labels), generator=generator_of(seed, "few labels", draw))
    return torch.cat([order[labels[order] == label][:FEW] for label in range(classes)])


def table() -> str:
    """Means and deviations over seeds, a line for each thing that was compared."""
    rows, lines = read_rows(CSV), list[list[str]]()
    for key in dict.fromkeys((row["data"], row["variant"], row["epsilon"]) for row in rows):
        own = [row for row in rows if (row["data"], row["variant"], row["epsilon"]) == key]
        figures = [spread([float(row[name]) for row in own]) for name in MEASURES]
        seconds = f"{fmean(float(row['cpu_seconds']) for row in own):.0f}"
        lines.append([key[0], key[1], key[2], *figures, seconds, str(len(own))])
    head = ["data", "variant", "ε", *MEASURES, "processor seconds", "seeds"]
    lines.sort(key=lambda each: (each[1][:5], each[0], each[2]))
    return sheet(head, lines)


def main() -> None:
    """Command line."""
    arguments = command_line(__doc__, "run", "page").parse_args()
    torch.set_num_threads(1)
    wanted = cells(arguments.seeds if arguments.what == "run" else 0)
    for row in measure_missing(CSV, Cell, wanted, measure, ["dp-accounting"]):
        print(*row.values(), sep=" | ", flush=True)
    print(fill(PAGE, lambda _: table()))


if __name__ == "__main__":
    main()
