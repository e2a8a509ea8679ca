"""Encoders out of whole runs, with their secure sums and the noise that they draw: view moments,
and private training with three rounds of two epochs, as it was the default before.
"""

from __future__ import annotations

import tempfile
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.private_encoders_cells import FEDERATION, FISHER_PRIOR, MAKES, RUNS
from bench.private_encoders_moments import BANK, CLIP, DELTA, VIEWS
from bench.private_encoders_sets import CLIENTS, Split
from secure_fl.data.dataset import Dataset
from secure_fl.estimate.course import estimate
from secure_fl.run import Federation

_TRAINING = {"method": "train", "rounds": 3, "local_epochs": 2, "lr": 0.5}
_RATE = 0.2
"""The share of its examples that a client's step draws."""


def federated(encoder: str, epsilon: float, seed: int, drawn: Split) -> tuple[Tensor, Tensor]:
    """Features of the bank and of the test examples by the encoder that a run ends with."""
    with tempfile.TemporaryDirectory() as folder:
        run = _federation(encoder, epsilon, seed, drawn)
        result = run.run(Path(folder) / "run", progress=False)
        return result.embed(drawn.train.x[:BANK]), result.embed(drawn.test.x)


def bytes_up(encoder: str, epsilon: float, drawn: Split) -> int:
    """Of one client over the whole run, as `secure-fl check` says."""
    known = estimate(_federation(encoder, epsilon, 0, drawn), timed=False)
    return round(sum(phase.rounds * phase.up for phase in known.phases) / CLIENTS)


def _federation(encoder: str, epsilon: float, seed: int, drawn: Split) -> Federation:
    train, test = drawn.train, drawn.test
    own = drawn.own.numpy() if len(drawn.own) else np.arange(len(train)) % CLIENTS
    data = Dataset.from_arrays(
        torch.cat([train.x, test.x]).numpy(),
        torch.cat([train.y, test.y]).numpy(),
        client=np.concatenate([own, np.arange(len(test)) % CLIENTS]),
        split=np.repeat([0, 2], [len(train), len(test)]),
        classes=train.classes,
    )
    width = drawn.shape[0]
    by_kind: dict[int, dict[str, Any]] = {
        2: {"data": {"column_means": [0.0] * width, "column_deviations": [1.0] * width}},
        3: {"data": {"scale": "none"}},
        4: {"views": {"turn": 180.0, "crop_scale": (0.6, 1.0)}},
    }
    private = {"unit": "example", "epsilon": epsilon, "delta": DELTA}
    config = {
        "seed": seed,
        **by_kind[train.x.ndim],
        **_pretraining(encoder, round(_RATE * len(train) / CLIENTS)),
        "pools": {"enabled": False},
        "privacy": private if epsilon < inf else {},
        "evaluate": {"enabled": False},
    }
    return Federation(config, data=data)


def _pretraining(encoder: str, batch: int) -> dict[str, Any]:
    """The tables that say how the encoder is made."""
    if encoder in RUNS:
        training = {**_TRAINING, "batch_size": batch}
        return {"pretrain": training, "objective": {"name": RUNS[encoder]}}
    kind, beside_prior = MAKES[FISHER_PRIOR if encoder == FEDERATION else encoder]
    moments = {"views_per_example": VIEWS, "moment_clip": CLIP, "head": kind}
    moments["prior"] = "synthetic" if beside_prior else "none"
    return {"pretrain": {"method": "view_moments", **moments}}
