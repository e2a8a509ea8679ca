"""Training without the noise that it is charged for: its models and updates tell who is in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy.noise import NoiseStream


def small() -> FederationConfig:
    """One private step over eighty digits a client, at a small ε."""
    return FederationConfig.model_validate(
        {
            "data": {"sources": [{"name": "digits", "limit": 300}]},
            "partition": {"kind": "iid", "clients": 3},
            "pretrain": {"mode": "none"},
            "pools": {"count": 1, "rounds": 1, "local_epochs": 1, "batch_size": 256},
            "privacy": {"unit": "example", "epsilon": 0.3},
            "evaluate": {"enabled": False},
        }
    )


def _without_noise() -> AbstractContextManager[object]:
    def gaussian(_: NoiseStream, shape: Sequence[int], *__: object) -> Tensor:
        return torch.zeros(tuple(shape))

    return patch.object(NoiseStream, "gaussian", gaussian)


FAULTS = (Fault("training without its noise", "membership", small, _without_noise),)
