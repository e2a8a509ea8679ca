"""Private training beside view moments, as `bench.private_accuracy` does it: one party that holds
all examples trains a small network on images of half the side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bench.private_accuracy import build, ordinary, private
from bench.private_accuracy_cells import Cell
from bench.private_encoders_moments import BANK
from bench.private_encoders_sets import Split
from secure_fl.data.dataset import Dataset
from secure_fl.models.heads import EncoderProjector
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed


def trained(method: str, epsilon: str, seed: int, drawn: Split) -> tuple[Tensor, Tensor]:
    """Features of the bank and of the test examples after 150 steps at a budget, or of ordinary
    training at ε = inf.
    """
    train, test = (_halved(data) for data in (drawn.train, drawn.test))
    data = {10_000: "Fashion-MNIST", 4000: "MNIST-5k"}[len(train)]
    cell = Cell.of(data, method, "ordinary" if epsilon == "inf" else epsilon, seed)
    model = build(cell, train)
    assert isinstance(model, EncoderProjector)
    (ordinary if epsilon == "inf" else private)(model, cell, train)
    compute = Compute(torch.device("cpu"))
    return embed(model.encoder, train.x[:BANK], compute), embed(model.encoder, test.x, compute)


def _halved(data: Dataset) -> Dataset:
    x = functional.avg_pool2d(data.x, 2)
    return Dataset.from_arrays(x.numpy(), data.y.numpy(), classes=data.classes, name=data.name)
