"""Faults of client-level noise that `client-noise` must find."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy.client_level import ClientLevel, norm_of
from secure_fl.privacy.integer_noise import skellam
from secure_fl.privacy.noise import NoiseStream

_share = ClientLevel.share


def config() -> FederationConfig:
    """Few parameters, many clients, and sums in the open: a round is quick."""
    tables: dict[str, Any] = {
        "partition": {"clients": 25, "kind": "iid"},
        "model": {"features": 16},
        "objective": {"name": "align_uniform"},
        "privacy": {"unit": "client", "noise": 1.0},
        "pools": {"enabled": False},
        "security": {"protection": "plain"},
    }
    return FederationConfig(**tables)


def _no_noise(_: ClientLevel, __: NoiseStream, length: int) -> Tensor:
    return torch.zeros(length, dtype=torch.int64)


def _half(self: ClientLevel, stream: NoiseStream, length: int) -> Tensor:
    return torch.div(_share(self, stream, length), 2, rounding_mode="trunc")


def _of_a_share(self: ClientLevel, stream: NoiseStream, length: int) -> Tensor:
    """A roster-th of the share: as many clients would have to survive once more."""
    narrow = skellam(self.variance / self.honest / self.roster)
    return torch.from_numpy(narrow.sample(stream, length))


def _twice_as_long(
    self: ClientLevel,
    update: Tensor,
    bound: float | None = None,
    **_: object,
) -> Tensor:
    limit = self.bound if bound is None else bound
    return (update.double() / max(norm_of(update) / 2, limit) * self.levels).trunc().long()


def _rounded_noise(self: ClientLevel, stream: NoiseStream, length: int) -> Tensor:
    """Normal deviates to the nearest even integer, of the right variance."""
    wide = (self.variance / self.honest) ** 0.5
    return 2 * (stream.gaussian((length,), wide).double() / 2).round().long()


def _planted(name: str, attribute: str, made: object) -> Fault:
    return Fault(name, "client-noise", config, partial(patch.object, ClientLevel, attribute, made))


FAULTS = (
    _planted("no client noise", "share", _no_noise),
    _planted("half client noise", "share", _half),
    _planted("one share of n, not of n_min - c", "honest", property(lambda self: self.roster)),
    _planted("an n-th of a share", "share", _of_a_share),
    _planted("updates clipped at twice the bound", "encode", _twice_as_long),
    _planted("rounded normal noise for Skellam", "share", _rounded_noise),
)
