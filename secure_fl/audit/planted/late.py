"""Faults of a single late round, which whoever looks at the first ones alone never sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.audit.planted import choices, client_noise, example_noise, protocol
from secure_fl.config import FederationConfig
from secure_fl.crypto.key_streams import Terms
from secure_fl.federation.asks import TrainPool
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.secure_sum.client import RoundClient

_ROUNDS = 41
_LAST = _ROUNDS - 1
_stream, _share, _terms = NoiseSource.stream, ClientLevel.share, RoundClient._mask_terms
_exponential = ExampleLevel._exponential


def _long(config: Callable[[], FederationConfig], table: str) -> Callable[[], FederationConfig]:
    """The same run with many rounds of one kind."""

    def made() -> FederationConfig:
        short = config()
        longer = getattr(short, table).model_copy(update={"rounds": _ROUNDS})
        return short.model_copy(update={table: longer})

    return made


class _Quiet(NoiseStream):
    """Gives zeros for noise."""

    __slots__ = ()

    def gaussian(self, shape: Sequence[int], deviation: float) -> Tensor:
        return torch.zeros(tuple(shape))


def _last_quiet(self: NoiseSource, **place: Any) -> NoiseStream:
    made = _stream(self, **place)
    if place["round"] == _LAST:
        made.__class__ = _Quiet
    return made


def _last_known(self: NoiseSource, **place: Any) -> NoiseStream:
    """The last round's noise is of a key that everybody knows."""
    made = _stream(self, **place)
    return NoiseStream(bytes(32), private=True) if place["round"] == _LAST else made


def _no_share(self: ClientLevel, stream: NoiseStream, length: int) -> Tensor:
    made = _share(self, stream, length)
    return torch.zeros_like(made) if isinstance(stream, _Quiet) else made


@contextmanager
def _quiet() -> Iterator[None]:
    with (
        patch.object(NoiseSource, "stream", _last_quiet),
        patch.object(ClientLevel, "share", _no_share),
    ):
        yield


def _last_bare(self: RoundClient, block: int) -> Terms:
    """In the last round vectors are uploaded as they are."""
    return () if self.plan.round == _last_number() else _terms(self, block)


def _last_number() -> int:
    """Of the last round of `_masked`, whose steps are counted through."""
    config = _masked()
    return config.pretrain.rounds + config.pools.rounds - 1


def _last_best(self: ExampleLevel, ask: TrainPool) -> int:
    """The last choice is of the best pool, for sure."""
    if ask.round != _LAST:
        return _exponential(self, ask)
    data, pools = self._choosing_examples, ask.pools
    means = [self._losses(pools, at, data).nan_to_num().mean() for at in range(len(pools))]
    return int(torch.stack(means).argmin())


_masked = _long(protocol.masked, "pools")
_noised = _long(client_noise.config, "pretrain")
_private = _long(example_noise.small, "pretrain")

FAULTS = (
    Fault("no client noise in the last round", "client-noise", _noised, _quiet),
    Fault("no noise of examples in the last round", "example-noise", _private, _quiet),
    Fault(
        "a known key of noise in the last round",
        "seeds",
        _private,
        partial(patch.object, NoiseSource, "stream", _last_known),
    ),
    Fault(
        "the best pool in the last choice",
        "choices",
        _long(choices.config, "pools"),
        partial(patch.object, ExampleLevel, "_exponential", _last_best),
    ),
    Fault(
        "no mask in the last round",
        "sources",
        _masked,
        partial(patch.object, RoundClient, "_mask_terms", _last_bare),
    ),
)
"""Each is in one round of dozens."""
