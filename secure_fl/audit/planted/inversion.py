"""Rounds in which one client's update, or one without its noise, is in the open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place
from secure_fl.federation.steps.program import StepProgram
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseStream

_form = StepProgram.form


def small(clients: int = 12, limit: int = 360, **tables: Any) -> FederationConfig:
    """A few digits a client, so that an update shows them; all others are candidates."""
    data = {"sources": [{"name": "digits", "limit": limit}], "test_fraction": 0.9}
    return FederationConfig(
        **{
            "data": data,
            "partition": {"clients": clients, "kind": "iid"},
            "model": {"features": 64},
            "pretrain": {"rounds": 1, "local_epochs": 1},
            "pools": {"enabled": False},
            "evaluate": {"enabled": False},
            **tables,
        }
    )


def _masked() -> FederationConfig:
    return small(limit=1500)


def _example() -> FederationConfig:
    return small(privacy={"unit": "example", "epsilon": 0.5})


def _client() -> FederationConfig:
    return small(clients=3, limit=120, privacy={"unit": "client", "epsilon": 1.0})


def _alone() -> AbstractContextManager[object]:
    """The sum is opened over one client."""

    def form(own: StepProgram, place: Place) -> SumForm:
        whole = _form(own, place)
        return replace(whole, cohort=whole.cohort[:1])

    return patch.object(StepProgram, "form", form)


def _quiet() -> AbstractContextManager[object]:
    def gaussian(_: NoiseStream, shape: Sequence[int], *__: object) -> Tensor:
        return torch.zeros(tuple(shape))

    return patch.object(NoiseStream, "gaussian", gaussian)


def _no_share() -> AbstractContextManager[object]:
    def share(_: ClientLevel, __: NoiseStream, length: int) -> Tensor:
        return torch.zeros(length, dtype=torch.int64)

    return patch.object(ClientLevel, "share", share)


def _linear(**tables: Any) -> FederationConfig:
    return small(clients=30, limit=900, model={"encoder": "mlp"}, **tables)


def _linear_example() -> FederationConfig:
    return _linear(privacy={"unit": "example", "epsilon": 0.5})


_planted = partial(Fault, check="inversion")
_read = partial(Fault, check="first-layer")
FAULTS = (
    _planted("one client's update is opened", config=_masked, plant=_alone),
    _planted("examples' updates without noise", config=_example, plant=_quiet),
    _planted("clients' updates without noise", config=_client, plant=_no_share),
    _read("first layer of one client's update", config=_linear, plant=_alone),
    _read("first layer without noise", config=_linear_example, plant=_quiet),
)
