"""Where all noise and all secret coins come from: one secret key a run, one cryptographic stream
for every purpose.

A `NoiseSource` holds 32 bytes from the operating system. For each (client, round, purpose) it
derives a key by HKDF-SHA256, and that key's AES-256-CTR keystream, read as 64-bit words, is the
`NoiseStream`. Integer noise is in `integer_noise.py`.

**Guarantee**: without the key, words are as unpredictable as AES-256 in counter mode: no test that
reads 2^36 bytes of a stream (2^32 blocks) tells them from fair coins with advantage above 2^-65
plus AES' own. Two triples never share a key; no triple is handed out twice.

**Assumes**: the operating system's generator is seeded; AES-256 and HMAC-SHA256 are pseudorandom; a
process uses its own source.

**Not covered**: whoever reads the process' memory, or restores a snapshot of its machine, can
repeat every stream of that source.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from math import isfinite, prod
from operator import index
from typing import NoReturn

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.ciphers import encrypt_into
from secure_fl.errors import PrivacyError

_DOMAIN = b"secure_fl noise 1"
_KEY_BYTES, _WORD_BYTES = 32, 8
_ZEROS = bytes(1 << 16)
"""What the cipher encrypts, piece by piece: CTR's keystream is the encryption of zeros."""
BLOCK = 1 << 15
"""Words turned into draws at a time: 256 KiB, so that temporaries stay in cache."""


class _OneProcess:
    """Neither copied, pickled nor forked: any of these would draw the same noise twice."""

    __slots__ = ("_process", "private")

    def __init__(self, private: bool) -> None:
        self._process = os.getpid()
        self.private = private
        """Whether the key is the operating system's; False for `NoiseSource.for_tests`."""

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            problem = "made before a fork, it would repeat the parent's noise"
            remedy = "call NoiseSource.fresh() inside each worker process"
            raise PrivacyError(problem, type(self).__name__, "used in a forked process", remedy)

    def _refuse(self, *_: object) -> NoReturn:
        problem = "a copy would draw the same noise twice"
        remedy = "hand on the object itself, or call NoiseSource.fresh() where it is needed"
        raise PrivacyError(problem, type(self).__name__, "copied or pickled", remedy)

    __reduce__ = __reduce_ex__ = __getstate__ = __copy__ = __deepcopy__ = _refuse

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self.private else ': for tests, NOT PRIVATE'}>"


class NoiseSource(_OneProcess):
    """The secret key of one run, and the record of which streams were taken from it.

    A resumed run makes a new source: its streams are independent of those before, so nothing secret
    is ever stored.
    """

    __slots__ = ("_key", "_lock", "_taken")

    def __init__(self) -> None:
        super().__init__(private=True)
        self._key = os.urandom(_KEY_BYTES)
        self._lock = threading.Lock()
        self._taken: set[bytes] = set()

    @classmethod
    def fresh(cls) -> NoiseSource:
        """A source with 32 new bytes from the operating system: what every run uses."""
        return cls()

    @classmethod
    def for_tests(cls, seed: int) -> NoiseSource:
        """A repeatable source for tests, `private` False: who knows the seed knows the noise."""
        source = cls()
        source.private = False
        source._key = hashlib.sha256(b"secure_fl noise for tests %d" % seed).digest()
        return source

    # the word of the domain
    def stream(self, *, client: int, round: int, purpose: str) -> NoiseStream:  # noqa: A002
        """The stream of one purpose of one client in one round. Streams of different triples
        are independent.

        Raises:
            PrivacyError: the triple was taken before, a number does not fit 64 bits, or this is a
                forked process.
        """
        self._check_process()
        info = _info(index(client), index(round), purpose)
        with self._lock:
            if info in self._taken:
                problem = "the stream was already taken: its noise would repeat"
                remedy = "keep the stream, or give the second use a purpose of its own"
                raise PrivacyError(problem, "stream", (client, round, purpose), remedy)
            self._taken.add(info)
        return NoiseStream(
            HKDF(SHA256(), _KEY_BYTES, salt=None, info=info).derive(self._key), private=self.private
        )


class NoiseStream(_OneProcess):
    """Draws from one keystream, no part of it twice, for one thread; see `NoiseSource.stream`."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes, *, private: bool) -> None:
        super().__init__(private)
        self._cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """`[count]` uniform 64-bit words: the keystream's next 8 · count bytes, little-endian.
        Raises PrivacyError: `count` is negative, or this is a forked process.
        """
        self._check_process()
        text = bytearray(_WORD_BYTES * check_count(count))
        left = memoryview(text)
        while left:
            piece = left[: len(_ZEROS)]
            encrypt_into(self._cipher, _ZEROS[: len(piece)], piece)
            left = left[len(piece) :]
        return np.frombuffer(text, "<u8").astype(np.uint64, copy=False)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`[count]` uniform numbers, strictly between 0 and 1.

        Each is the middle of one of 2^63 equal cells, rounded to the nearest float64 below 1:
        spaced by 2^-53 near 1, by 2^-63 at 0.
        """
        return np.minimum(_unit(self.words(count)), 1 - 2.0**-53)

    def gaussian(self, shape: Sequence[int], deviation: float) -> Tensor:
        """Normal deviates of mean 0, float32 in `shape`: Box–Muller in float64, scaled, then
        rounded once.

        **Guarantee**: every two draws have two words of their own, which no other draw uses. The
        largest draw is 9.42 deviations; the normal's mass beyond is 2^-67.

        **Not covered**: floating point (Mironov, CCS 2012). Draws lie on an uneven grid, and so
        does their sum with a value, so the low bits of a sum can tell two values apart that the
        real-valued mechanism hides; ε holds for the real-valued one. This is for noise whose sum
        stays with the client. What leaves it as a noised sum takes the integers of
        `integer_noise.py`, where the proof is about the very bits that are sent. The time of a draw
        is that of torch's log, sqrt, sin and cos, which may depend on their arguments.

        Raises:
            PrivacyError: `deviation` is not positive and finite, or a size is negative.
        """
        if not (isfinite(deviation) and deviation > 0):
            problem, remedy = "not a finite number above 0", "pass the noise's standard deviation"
            raise PrivacyError(problem, "deviation", deviation, remedy)
        for size in shape:
            check_count(size)
        noise = torch.empty(prod(shape), dtype=torch.float32)
        for part in blocks(len(noise)):
            noise[part] = deviation * self._pairs(part.stop - part.start)
        return noise.reshape(tuple(shape))

    def _pairs(self, count: int) -> Tensor:
        """Float64 `[count]` standard normal deviates; an odd count drops the last one's twin."""
        half = -(-count // 2)
        words = self.words(2 * half)
        radius = torch.from_numpy(_unit(words[:half])).log().mul(-2).sqrt()
        angle = torch.from_numpy(words[half:].view(np.int64) * (np.pi * 2.0**-63))
        # torch's sine and cosine are ten times as fast as numpy's here: 2 against 20 ns.
        return torch.cat((radius * angle.cos(), radius * angle.sin()))[:count]

    def coins(self, count: int, probability: float) -> Tensor:
        """Bool `[count]`, each True with `probability` rounded down to a multiple of 2^-64 (0 and 1
        are exact). Raises PrivacyError: `probability` is not within [0, 1].
        """
        if not 0 <= probability <= 1:
            remedy = "pass a probability"
            raise PrivacyError("must lie within [0, 1]", "probability", probability, remedy)
        words = self.words(count)
        if probability == 1:
            return torch.ones(count, dtype=torch.bool)
        # Scaling a float64 by a power of two is exact, so int() is the one rounding.
        return torch.from_numpy(words < np.uint64(int(probability * 2.0**64)))

    def permutation(self, count: int) -> Tensor:
        """Int64 `[count]`: 0 … count − 1 in uniformly random order.

        The order of as many words, all drawn again should two be equal (count²/2^65): given that
        they differ, every order is equally likely.
        """
        while True:
            words = self.words(count)
            order = np.argsort(words)
            ranked = words[order]
            if not np.any(ranked[1:] == ranked[:-1]):
                return torch.from_numpy(order.astype(np.int64, copy=False))


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most `BLOCK` that cover `range(count)`."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def check_count(count: int) -> int:
    """`count`, which must not be negative."""
    if count < 0:
        raise PrivacyError("must not be negative", "count", count, "ask for 0 or more draws")
    return count


def _info(client: int, round_: int, purpose: str) -> bytes:
    """The triple as bytes, no two alike: numbers have a fixed width, and the text comes last."""
    try:
        return _DOMAIN + struct.pack(">qq", client, round_) + purpose.encode()
    except struct.error:
        problem, remedy = "client and round must fit 64 bits", "number clients and rounds from 0"
        raise PrivacyError(problem, "stream", (client, round_), remedy) from None


def _unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Words as numbers in (0, 1]: (⌊w/2⌋ + ½)/2^63 to the nearest float64. Signed integers convert
    five times as fast as unsigned ones.
    """
    return ((words >> np.uint64(1)).view(np.int64).astype(np.float64) + 0.5) * 2.0**-63
