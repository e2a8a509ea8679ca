"""The generator behind every mask: a 32-byte key becomes a stream of residues, equal at both ends.

Keystream: AES-128-CTR; a key's first 16 bytes are the cipher's, the others the first counter.
Modulo 2^64, word j is bytes 8j to 8j+7, little-endian. Modulo a t of 33 to 40 bits the keystream is
cut into groups of 20,480 bytes that make 4,096 words (one BFV ciphertext): 16,384 bytes of low
halves (4 each, little-endian), then 4,096 high bytes, their bits beyond t's dropped. A word that is
not below t is replaced where it stands, by the next words of a second keystream (whose first
counter is 2^127 further on) until one is below t; so a word's place never depends on another word.

Guarantee: under AES-128 as a pseudorandom permutation, streams of distinct keys cannot be told from
independent uniform residues (rejection: no modulo bias). 128 bits are what X25519, which pair seeds
come from, and the encryption have as well; since counters differ from key to key, no table made
beforehand and no search over one client's keys serves for another's.
Assumes: keys are uniform, secret and used for one stream only.
Not covered: the time that rejection takes, which depends on keystream words that no message
contains; big-endian machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from secure_fl.ciphers import encrypt_into
from secure_fl.errors import SecureSumError

Slots = NDArray[np.uint64]
Terms = Sequence[tuple[bytes, int]]
"""Keys, each with the sign (+1 or −1) of its stream."""
Streams = Callable[[Slots, Terms, int], None]
"""What adds the streams of `Terms` to a vector modulo a modulus; tests put variables here."""

WORDS = 2**64
"""The modulus of `masked` alone: words as they are."""
KEY_BYTES = 32
MOST_TERMS = 2**22
"""Lazy sums: 2^22 words of 40 bits stay below 2^62."""

_GROUP = 4096
RUN = 8 * _GROUP
"""Words worked on at a time: vector, words and keystream stay in a second-level cache of 1 MiB."""
_ZEROS = bytes(8 * RUN)


def runs(slots: int) -> Iterator[tuple[int, int]]:
    """Begin and end of runs of at most `RUN` slots."""
    return ((start, min(start + RUN, slots)) for start in range(0, slots, RUN))


def expand(key: bytes, slots: int, modulus: int = WORDS) -> Slots:
    """The first `slots` residues of a key's stream, uint64 `[slots]`. Raises SecureSumError: key,
    number of slots or modulus is not one the generator takes.
    """
    if slots < 0:
        raise SecureSumError("number of slots is negative", "slots", slots, "ask for 0 or more")
    vector: Slots = np.zeros(slots, np.uint64)
    add_streams(vector, [(key, 1)], modulus)
    return vector


def add_streams(vector: Slots, terms: Terms, modulus: int) -> None:
    """Add the signed streams of all keys to `vector` in place, chunk by chunk, and reduce each
    chunk once.

    Args:
        vector: uint64 `[slots]`, contiguous; modulo t its values are below t before and after.
        terms: (key, sign) pairs, at most 2^22.
        modulus: 2^64, or t of 33 to 40 bits.

    Raises:
        SecureSumError: a key, sign, modulus or vector that does not fit.
    """
    check_slots(vector)
    streams = SignedStreams(terms, modulus, longest=len(vector))
    for start, stop in runs(len(vector)):
        streams.add_to(vector[start:stop])


class SignedStreams:
    """The signed streams of all keys, added to a vector that comes run by run: it never has to be
    in memory as a whole.

    Args:
        terms: (key, sign) pairs, at most 2^22.
        modulus: 2^64, or t of 33 to 40 bits.
        longest: slots that the longest run will have; at most `RUN`.

    Raises:
        SecureSumError: a key, sign or modulus that does not fit.
    """

    def __init__(self, terms: Terms, modulus: int, *, longest: int) -> None:
        check_modulus(modulus)
        if len(terms) > MOST_TERMS or any(sign not in (1, -1) for _, sign in terms):
            problem = "signs must be +1 or −1, for at most 2^22 streams"
            raise SecureSumError(problem, "terms", len(terms), "mask in smaller groups")
        self._streams = [
            (_Stream(key, modulus), np.add if sign > 0 else np.subtract) for key, sign in terms
        ]
        most = min(RUN, _in_groups(longest))
        self._work, self._scratch = np.empty(most, np.uint64), bytearray(5 * most)
        self._modulus = modulus
        self._ended = False

    def add_to(self, run: Slots) -> None:
        """Add the next words of every stream, in place, and reduce once.

        Args:
            run: uint64, contiguous; every run but the last has a multiple of 4,096 slots. Modulo t
                its values are below t before and after.

        Raises:
            SecureSumError: a run that is longer than `longest`, or that follows one of another
                multiple: the streams are beyond it.
        """
        if self._ended or len(run) > len(self._work):
            remedy = (
                f"runs of n·{_GROUP} slots, at most {len(self._work)}; a shorter one at the end"
            )
            raise SecureSumError("the streams do not go on here", "run", len(run), remedy)
        self._ended = len(run) % _GROUP != 0
        words = self._work[: _in_groups(len(run))]
        for stream, combine in self._streams:
            stream.fill(words, self._scratch)
            combine(run, words[: len(run)], out=run)
        if self._modulus != WORDS:
            _reduce_signed(run.view(np.int64), self._modulus)


def reduce(vector: Slots, modulus: int) -> None:
    """Bring lazily added residues, below 2^63, back below the modulus, in place; not for 2^64."""
    if modulus != WORDS:
        for start, stop in runs(len(vector)):
            _reduce_signed(vector[start:stop].view(np.int64), modulus)


def check_modulus(modulus: int) -> None:
    """Refuse a modulus that is neither 2^64 nor of 33 to 40 bits. Raises SecureSumError."""
    if modulus != WORDS and not 33 <= modulus.bit_length() <= 40:
        remedy = "take 2^64 or a batching prime of 33 to 40 bits"
        raise SecureSumError("no stream of residues for this modulus", "modulus", modulus, remedy)


def check_slots(vector: Slots) -> None:
    """Refuse what is not a contiguous uint64 vector. Raises SecureSumError."""
    if (
        not isinstance(vector, np.ndarray)
        or vector.dtype != np.uint64
        or vector.ndim != 1
        or not vector.flags.c_contiguous
    ):
        kind = getattr(vector, "dtype", type(vector).__name__)
        found, remedy = (kind, getattr(vector, "shape", None)), "pass what `FieldLayout.pack` gives"
        raise SecureSumError("not a contiguous uint64 vector", "slots", found, remedy)


def _in_groups(slots: int) -> int:
    return -(-slots // _GROUP) * _GROUP


def _reduce_signed(chunk: NDArray[np.int64], modulus: int) -> None:
    # Floor division by a scalar is vectorised in numpy and np.remainder is not: 1.8 ns a word
    # against 10.
    quotient = chunk // modulus
    quotient *= modulus
    np.subtract(chunk, quotient, out=chunk)


class _Stream:
    """One key's stream, read a chunk at a time."""

    def __init__(self, key: bytes, modulus: int) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            remedy = "take it from `pair_seeds` or `self_seeds`"
            raise SecureSumError("a mask key has 32 bytes", "key", "(hidden)", remedy)
        self._key, self._modulus = key, modulus
        cipher, counter = algorithms.AES(key[:16]), key[16:]
        self._bytes = Cipher(cipher, modes.CTR(counter)).encryptor()
        further = bytes([counter[0] ^ 128]) + counter[1:]
        self._spare = None if modulus == WORDS else Cipher(cipher, modes.CTR(further)).encryptor()

    def fill(self, out: Slots, scratch: bytearray) -> None:
        """Fill `out`, whole groups, with the next words; `scratch` has five bytes for each."""
        if self._modulus == WORDS:
            encrypt_into(self._bytes, memoryview(_ZEROS)[: 8 * len(out)], out.view(np.uint8).data)
            return
        keystream = memoryview(scratch)[: 5 * len(out)]
        encrypt_into(self._bytes, memoryview(_ZEROS)[: len(keystream)], keystream)
        groups = np.frombuffer(keystream, np.uint8).reshape(-1, 5 * _GROUP)
        _join(groups, out, self._modulus.bit_length())
        if int(out.max(initial=0)) >= self._modulus:
            self._replace(out)

    def _replace(self, out: Slots) -> None:
        assert self._spare is not None
        width = self._modulus.bit_length()
        for place in np.flatnonzero(out >= np.uint64(self._modulus)):
            word = self._modulus
            while word >= self._modulus:
                word = int.from_bytes(self._spare.update(bytes(5)), "little") & ((1 << width) - 1)
            out[place] = word


def _join(groups: NDArray[np.uint8], out: Slots, width: int) -> None:
    low, high = groups[:, : 4 * _GROUP].view("<u4"), groups[:, 4 * _GROUP :]
    if width < 40:
        high = high & np.uint8((1 << (width - 32)) - 1)
    halves = out.view("<u4").reshape(-1, _GROUP, 2)
    halves[:, :, 0], halves[:, :, 1] = low, high
