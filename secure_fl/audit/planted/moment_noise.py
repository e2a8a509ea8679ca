"""Faults of sums of view moments that `moment-noise` must find."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy.example_sums import ExampleSum
from secure_fl.privacy.integer_noise import skellam
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.view_moments import ViewMoments

_noised, _triangle_sum = ExampleSum.noised, ViewMoments._of_views


def config() -> FederationConfig:
    """Few features and clients, and sums in the open: an answer is quick."""
    tables: dict[str, Any] = {
        "partition": {"clients": 6, "kind": "iid"},
        "model": {"features": 16},
        "pretrain": {"method": "view_moments", "views_per_example": 3, "prior": "none"},
        "pools": {"enabled": False},
        "privacy": {"unit": "example"},
        "security": {"protection": "plain"},
    }
    return FederationConfig(**tables)


def _bare(_: ExampleSum, total: Tensor, __: NoiseStream) -> Tensor:
    return total


def _half(self: ExampleSum, total: Tensor, stream: NoiseStream) -> Tensor:
    noise = _noised(self, torch.zeros_like(total), stream)
    return total + torch.div(noise, 2, rounding_mode="trunc")


def _of_the_roster(self: ExampleSum, total: Tensor, stream: NoiseStream) -> Tensor:
    """As if every client's share were certain."""
    narrow = skellam(self.variance / self.roster)
    return total + torch.from_numpy(narrow.sample(stream, len(total)))


def _no_clip(self: ViewMoments, units: Tensor) -> Tensor:
    return (units - units.mean(1, keepdim=True)) / sqrt(self.views * self.clip) * 3


def _unchecked(self: ViewMoments, views: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing is clipped, and nothing checks that it was."""
    with patch.object(ViewMoments, "_within", _no_clip):
        total, squares = _triangle_sum(self, views, centre)
    return total, torch.zeros_like(squares)


def _planted(name: str, owner: type, attribute: str, made: object) -> Fault:
    return Fault(name, "moment-noise", config, partial(patch.object, owner, attribute, made))


FAULTS = (
    _planted("sums of moments without noise", ExampleSum, "noised", _bare),
    _planted("half noise on sums of moments", ExampleSum, "noised", _half),
    _planted("a share of n, not of n_min - c", ExampleSum, "noised", _of_the_roster),
    _planted("matrices that are not clipped", ViewMoments, "_of_views", _unchecked),
)
