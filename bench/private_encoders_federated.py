"""The same encoder out of a whole federation, with its secure sum and integer noise."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.private_encoders_moments import BANK, CLIP, DELTA, VIEWS
from bench.private_encoders_sets import CLIENTS, Split
from secure_fl.data.dataset import Dataset
from secure_fl.run import Federation


def federated(epsilon: float, seed: int, drawn: Split) -> tuple[Tensor, Tensor]:
    """Features of the bank and of the test examples by the encoder that a run ends with."""
    train, test = drawn.train, drawn.test
    data = Dataset.from_arrays(
        torch.cat([train.x, test.x]).numpy(),
        torch.cat([train.y, test.y]).numpy(),
        client=np.concatenate([drawn.own.numpy(), np.arange(len(test)) % CLIENTS]),
        split=np.repeat([0, 1], [len(train), len(test)]),
        classes=train.classes,
    )
    config = {
        "seed": seed,
        "views": {"turn": 180.0, "crop_scale": (0.6, 1.0)},
        "pretrain": {
            "method": "view_moments",
            "views_per_example": VIEWS,
            "moment_clip": CLIP,
        },
        "pools": {"enabled": False},
        "privacy": {"unit": "example", "epsilon": epsilon, "delta": DELTA},
        "evaluate": {"enabled": False},
    }
    with tempfile.TemporaryDirectory() as folder:
        result = Federation(config, data=data).run(Path(folder) / "run", progress=False)
        return result.embed(train.x[:BANK]), result.embed(test.x)
