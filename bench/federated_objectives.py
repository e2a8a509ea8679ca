"""Whether SSD's separation makes a better encoder than other losses, over label skews and numbers
of clients, without privacy.

    python -m bench.federated_objectives [run] [--seeds 3]    measure what is missing, then write
                                                              the page's table
    python -m bench.federated_objectives page                 write the table into
                                                              docs/private-accuracy.md

FedAvg of each loss on 1,400 digits (a fully connected encoder) or 4,000 examples of MNIST-5k, 14
pixels a side, whose labels are dealt by Dirichlet draws: ten rounds of one local epoch in batches
of 32, sums in the open. Learning rates are those that `private_accuracy` tuned for ordinary
training on MNIST-5k. SSD is align + uniformity with two
more terms, `masked` is masked modelling, `nt_xent` FedSimCLR. Rows go to
`results/federated_objectives.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.federated_objectives_page import CSV, RANDOM, Cell, cells
from bench.harness import command_line, measure_missing
from bench.judging import judged
from bench.private_accuracy_cells import METHODS
from bench.private_accuracy_page import write_page
from secure_fl.config import DataConfig, ModelConfig, SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources import load_source
from secure_fl.models.build import build_encoder
from secure_fl.run import Federation
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed

ROUNDS = 10
SETS: dict[str, tuple[Any, int | None, int, Any]] = {
    "digits": ("digits", None, 1400, "mlp"),
    "MNIST-5k": ("mnist5k", 14, 4000, "auto"),
}
"""Source, side, examples to train on, encoder."""


def measure(cell: Cell) -> dict[str, object]:
    """The row of one cell."""
    source, side, examples, _ = SETS[cell.data]
    whole, _ = load_source(SourceConfig(name=source), DataConfig(image_size=side), 0)
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "split"))
    order = torch.randperm(len(whole), generator=generator)
    train, test = whole.take(order[:examples]), whole.take(order[examples:])
    began = time.process_time()
    h, g = _embedded(cell, train, test)
    seconds = round(time.process_time() - began, 1)
    scores = judged(h, train.y, g, test.y, classes=10, seed=cell.seed, epochs=40)
    return {**vars(cell), **scores, "cpu_seconds": seconds}


def _embedded(cell: Cell, train: Dataset, test: Dataset) -> tuple[Tensor, Tensor]:
    """Features of training and of test examples."""
    if cell.objective == RANDOM:
        shape = tuple(train.x.shape[1:])
        kind = ModelConfig(encoder=SETS[cell.data][3])
        model = build_encoder(kind, shape, derive_seed(cell.seed, "encoder"))
        compute = Compute(torch.device("cpu"))
        return embed(model, train.x, compute), embed(model, test.x, compute)
    found = Federation(_config(cell), data=_given(train, test)).run(progress=False)
    return found.embed(train.x), found.embed(test.x)


def _config(cell: Cell) -> dict[str, Any]:
    """Settings that are not named have their defaults."""
    lr = next(method.lr[0] for method in METHODS.values() if method.objective == cell.objective)
    dealt = {"kind": "dirichlet", "concentration": cell.alpha, "clients": cell.clients}
    return {
        "seed": cell.seed,
        "partition": dealt,
        "model": {"encoder": SETS[cell.data][3]},
        "objective": {"name": cell.objective},
        "pretrain": {"rounds": ROUNDS, "local_epochs": 1, "batch_size": 32, "lr": lr},
        "pools": {"enabled": False},
        "security": {"protection": "plain"},
        "evaluate": {"enabled": False},
    }


def _given(train: Dataset, test: Dataset) -> Dataset:
    """What the run deals out: all of `train` is trained on."""
    x, y = torch.cat([train.x, test.x]), torch.cat([train.y, test.y])
    split = torch.tensor([0, 2]).repeat_interleave(torch.tensor([len(train), len(test)]))
    return Dataset.from_arrays(x.numpy(), y.numpy(), split=split.numpy(), classes=10)


def run(seeds: int) -> Iterator[dict[str, object]]:
    """Measure what has no row yet."""
    return measure_missing(CSV, Cell, cells(seeds), measure)


def main() -> None:
    """Command line."""
    arguments = command_line(__doc__, "run", "page").parse_args()
    torch.set_num_threads(1)
    for row in run(arguments.seeds) if arguments.what == "run" else ():
        print(*list(row.values())[:9], sep=" | ", flush=True)
    print(write_page())


if __name__ == "__main__":
    main()
