"""Releases about all examples of a client that are made without the noise they are charged for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import PropertyMock, patch

from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy import private_sketch
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics


def _small() -> FederationConfig:
    return FederationConfig.model_validate(
        {
            "data": {"sources": [{"name": "digits", "limit": 400}]},
            "partition": {"kind": "iid", "clients": 3},
            "pretrain": {"rounds": 1, "local_epochs": 1},
            "pools": {"count": 1, "rounds": 1},
            "privacy": {"unit": "example", "epsilon": 1.0},
            "evaluate": {"enabled": False},
        }
    )


def _sketched() -> FederationConfig:
    return FederationConfig.model_validate(
        {
            "data": {"sources": [{"name": "digits", "limit": 400}]},
            "partition": {"kind": "iid", "clients": 9},
            "pretrain": {"mode": "none"},
            "pools": {"rounds": 1, "local_epochs": 1},
            "privacy": {"sketch_epsilon": 0.5},
            "evaluate": {"enabled": False},
        }
    )


def _bare_statistic() -> AbstractContextManager[object]:
    bare = PropertyMock(return_value=1e-9)
    return patch.object(ReleasedStatistics, "statistic_noise", new=bare)


def _bare_sketch() -> AbstractContextManager[object]:
    def released(parts: Tensor, size: int, *_: object) -> Tensor:
        total: Tensor = parts.sum(0).double() / (private_sketch.GRID * size)
        return total

    return patch.object(private_sketch, "_released", released)


FAULTS = (
    Fault("statistic released without noise", "property-probe", _small, _bare_statistic),
    Fault("sketch released without noise", "property-probe", _sketched, _bare_sketch),
)
