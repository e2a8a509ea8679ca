"""Streams, masks and encryptions that come twice, which `seeds` must find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.he import cipher_sum
from secure_fl.he.encryptor import Ciphertext, Encryptor
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.secure_sum import masks, setup
from secure_fl.secure_sum.masks import UsedSeeds

_ciphertext, _derive, _share = Encryptor.ciphertext, masks._derive, ClientLevel.share
_self_seeds, _source, _once = masks.self_seeds, NoiseSource.__init__, ReleaseBox.once


def examples() -> FederationConfig:
    """Private training and noised sketches."""
    tables: dict[str, Any] = {
        "partition": {"clients": 4, "kind": "iid"},
        "model": {"features": 16},
        "objective": {"name": "align_uniform"},
        "privacy": {"unit": "example", "noise": 3.0, "epsilon": 100.0},
        "pools": {"count": 2, "start": "sketch"},
        "security": {"protection": "plain"},
    }
    return FederationConfig(**tables)


def config() -> FederationConfig:
    """Everything that is drawn: noise, masks, and encryptions."""
    tables: dict[str, Any] = {
        "partition": {"clients": 6, "kind": "iid"},
        "model": {"features": 16},
        "objective": {"name": "align_uniform"},
        "privacy": {"unit": "client", "noise": 2.0},
        "pretrain": {"mode": "none"},
        "pools": {"count": 2, "start": "random"},
    }
    return FederationConfig(**tables)


def _by_client(self: NoiseSource, *, client: int, **_: object) -> NoiseStream:
    """The same in every round, for every purpose."""
    return NoiseStream(sha256(self._key + b"%d" % client).digest(), private=True)


def _two_alike(self: NoiseSource, *, client: int, round: int, purpose: str) -> NoiseStream:  # noqa: A002
    """The third client has the noise of the second."""
    whose = f"{min(client, 1)}/{round}/{purpose}"
    return NoiseStream(sha256(self._key + whose.encode()).digest(), private=True)


def _one_for_both(self: Releasing, *_: object) -> NoiseStream:
    """One stream for a client's centre and for its sketch."""
    return NoiseStream(sha256(self.noise._key + b"%d" % self.client).digest(), private=True)


def _short_keys(self: NoiseSource) -> None:
    """Keys of 32 bits."""
    _source(self)
    self._key = os.urandom(4) + bytes(28)


def _short_seeds(blocks: int, **_: object) -> list[bytes]:
    return [os.urandom(4) + bytes(28) for _ in range(blocks)]


def _turned(self: ClientLevel, stream: NoiseStream, length: int) -> Tensor:
    """The second half of a vector's noise is that of the first, with its sign turned."""
    made = _share(self, stream, length)
    made[length // 2 : 2 * (length // 2)] = -made[: length // 2]
    return made


def _one_seed(blocks: int, *, randomness: Callable[[int], bytes]) -> list[bytes]:
    return _self_seeds(1, randomness=randomness) * blocks


def _one_pair_seed(*arguments: Any) -> list[bytes]:
    made = _derive(*arguments)
    return made[:1] * len(made)


def _first_again(self: Encryptor, plaintext: Any = None) -> Ciphertext:
    """Every second number of one client hides under the encryption of zero of the one before."""
    kept: Ciphertext | None = vars(self).pop("_kept", None)
    if kept is not None:
        return kept
    made = vars(self)["_kept"] = _ciphertext(self, plaintext)
    return made


def _afresh(
    _: ReleaseBox, __: str, make: Callable[[], dict[str, Tensor]], **___: object
) -> dict[str, Tensor]:
    return make()


def _later_afresh(
    self: ReleaseBox, key: str, make: Callable[[], dict[str, Tensor]], **more: bool
) -> dict[str, Tensor]:
    """Only the first round is kept."""
    return _once(self, key, make, **more) if "/0/" in key else make()


@contextmanager
def _unguarded(home: object, name: str, made: object) -> Iterator[None]:
    """With a client's own guard against a seed's second use off."""
    with patch.object(UsedSeeds, "spend"), patch.object(home, name, made):
        yield


@contextmanager
def _encrypted_again() -> Iterator[None]:
    """With the server's own guard against a seed's second use off."""
    blind = patch.object(cipher_sum, "_short", _any)
    with blind, patch.object(Encryptor, "ciphertext", _first_again):
        yield


def _any(seeds: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * len(seeds)), np.uint64)


FAULTS = tuple(
    Fault(name, "seeds", config, plant)
    for name, plant in (
        ("reused seed of noise", partial(patch.object, NoiseSource, "stream", _by_client)),
        ("noise that another block has", partial(patch.object, ClientLevel, "share", _turned)),
        ("reused seed of masks", partial(_unguarded, setup, "self_seeds", _one_seed)),
        ("a pair's seed for all blocks", partial(_unguarded, masks, "_derive", _one_pair_seed)),
        ("reused encryption", _encrypted_again),
        ("a resumed round noised afresh", partial(patch.object, ReleaseBox, "once", _afresh)),
        ("a later round noised afresh", partial(patch.object, ReleaseBox, "once", _later_afresh)),
        ("keys of noise of 32 bits", partial(patch.object, NoiseSource, "__init__", _short_keys)),
        ("seeds of masks of 32 bits", partial(patch.object, setup, "self_seeds", _short_seeds)),
    )
) + tuple(
    Fault(name, "seeds", examples, plant)
    for name, plant in (
        ("two clients with one noise", partial(patch.object, NoiseSource, "stream", _two_alike)),
        (
            "one noise for centre and sketch",
            partial(patch.object, Releasing, "stream", _one_for_both),
        ),
    )
)
