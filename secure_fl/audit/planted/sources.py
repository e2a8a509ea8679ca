"""Secrets that look random and rest on less than they should: for `sources`, `masks`, `seeds`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.audit.check import Fault
from secure_fl.audit.planted.protocol import masked
from secure_fl.audit.planted.seeds import config as noised
from secure_fl.crypto import key_streams
from secure_fl.crypto.key_streams import Terms
from secure_fl.crypto.shares import Share, split_many
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.secure_sum import masks, setup
from secure_fl.secure_sum.client import RoundClient

_derive, _agreed, _split = masks._derive, masks._agreed, split_many
_share, _terms, _stream = RoundClient._share, RoundClient._mask_terms, NoiseStream.__init__
_source, _mask_stream = NoiseSource.__init__, key_streams._Stream.__init__


def _narrow(secret: bytes, size: int = 4) -> bytes:
    """32 bytes that look random, made of a few of these."""
    return sha256(secret[:size]).digest()


def _narrow_self(blocks: int, *, randomness: Callable[[int], bytes]) -> list[bytes]:
    return [_narrow(randomness(32)) for _ in range(blocks)]


def _narrow_pairs(*arguments: Any) -> list[bytes]:
    return [_narrow(seed, 8) for seed in _derive(*arguments)]


def _narrow_agreed(*arguments: Any) -> bytes:
    return _narrow(_agreed(*arguments))


class _NarrowKeys:
    """Makes keys of 32 bits."""

    @staticmethod
    def generate() -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(_narrow(os.urandom(32)))


def _narrow_mask(self: Any, key: bytes, modulus: int) -> None:
    _mask_stream(self, _narrow(key), modulus)


def _narrow_source(self: NoiseSource) -> None:
    _source(self)
    self._key = _narrow(self._key)


def _narrow_noise(self: NoiseStream, key: bytes, *, private: bool) -> None:
    _stream(self, _narrow(key), private=private)


def _of_pair_keys(self: RoundClient, data: bytes) -> bytes:
    """The self mask follows from the secret key of the pairs' masks, which a dropped client's
    holders open.
    """
    state = self._state
    assert state.masking is not None
    key = state.masking.private_bytes_raw()
    state.self_seeds[1:] = [
        sha256(key + bytes([block])).digest() for block in range(1, len(state.self_seeds))
    ]
    return _share(self, data)


def _one_neighbour(self: RoundClient, block: int) -> Terms:
    """A pair's mask is there between neighbours in the list alone."""
    kept, size = _terms(self, block), len(self._book.names)
    own, *pairs = kept
    partners = sorted(self._pairs)
    near = {(self._position + 1) % size, (self._position - 1) % size}
    return [own, *(pair for pair, other in zip(pairs, partners, strict=True) if other in near)]


def _line(secrets: Sequence[bytes], threshold: int, count: int, **more: Any) -> list[list[Share]]:
    """Shares of a line: two of them open a secret."""
    made = _split(secrets, 2, 3, **more)
    return [_continued(row, threshold, count) for row in made]


def _continued(row: Sequence[Share], threshold: int, count: int) -> list[Share]:
    slope = row[1].value - row[0].value
    values = ((row[0].value + slope * step) % _PRIME for step in range(count))
    return [Share(index, threshold, value) for index, value in enumerate(values, 1)]


_PRIME = 2**521 - 1


def _narrow_draws(secrets: Sequence[bytes], *rest: Any, **more: Any) -> list[list[Share]]:
    """Coefficients of 64 bits: a share then lies next to its secret."""
    narrow = more.pop("randomness")
    return _split(secrets, *rest, randomness=lambda size: bytes(58) + narrow(size)[58:], **more)


def _same_draws(secrets: Sequence[bytes], *rest: Any, **more: Any) -> list[list[Share]]:
    """All secrets' polynomials have the coefficients of the first but for the secret itself."""
    drawn = [os.urandom(66) for _ in range(rest[0] - 1)]
    made = list[list[Share]]()
    for secret in secrets:
        again = iter(drawn)
        told = {**more, "randomness": lambda _, again=again: next(again)}
        made += _split([secret], *rest, **told)
    return made


def _planted(
    name: str, home: object, at: str, made: object, check: str = "sources", **more: Any
) -> Fault:
    return Fault(name, check, more.get("config", masked), partial(patch.object, home, at, made))


FAULTS = (
    _planted("self masks of 32 bits that look random", setup, "self_seeds", _narrow_self),
    _planted("pairs' masks of 64 bits that look random", masks, "_derive", _narrow_pairs),
    _planted("agreed secrets of 32 bits that look random", masks, "_agreed", _narrow_agreed),
    _planted("mask keys of 32 bits", setup, "X25519PrivateKey", _NarrowKeys),
    _planted("self masks that follow from the pairs' key", RoundClient, "_share", _of_pair_keys),
    _planted("masks with two neighbours of all", RoundClient, "_mask_terms", _one_neighbour),
    _planted("shares that two holders open", setup, "split_many", _line),
    _planted("shares of small coefficients", setup, "split_many", _narrow_draws),
    _planted("secrets shared with one polynomial", setup, "split_many", _same_draws),
    _planted("words of masks of 32 bits", key_streams._Stream, "__init__", _narrow_mask, "masks"),
    _planted(
        "sources of noise of 32 bits",
        NoiseSource,
        "__init__",
        _narrow_source,
        "seeds",
        config=noised,
    ),
    _planted(
        "streams of noise of 32 bits",
        NoiseStream,
        "__init__",
        _narrow_noise,
        "seeds",
        config=noised,
    ),
)
"""Of `sources`, `masks` and `seeds`."""
