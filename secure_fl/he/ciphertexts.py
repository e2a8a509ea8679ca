"""The bytes of an encrypted vector: a fixed head, seeds where they stand for half of each
ciphertext, then packed words.

    magic 4 | kind u8 | numbers u32 | parameter digest 32 | key fingerprint 32 | seeds 64·c | words

A short vector of BFV may be cut: a coefficient of the plaintext needs its own coefficient of c0 and
all of c1, so the rest of c0 is left out. Four counts under a shared key then take 0.2 kB and not
28, which everybody can be sent.

Nothing depends on the numbers inside: the length follows from their count. Context and keys never
travel with a vector (NVFlare's decomposer sends 0.66 MB of context with each one).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.key_streams import RUN
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.bit_packing import PackedWords, packed_bytes
from secure_fl.he.parameters import ParameterSet
from secure_fl.he.seal_bridge import SEED_BYTES

_HEAD = struct.Struct("<4sBI32s32s")
_MAGIC = b"SFC1"
HEAD_BYTES = _HEAD.size


class Kind(IntEnum):
    """What a body holds: whose ciphertexts, and which of their halves."""

    SEEDED = 1
    """One client's upload under the shared key: c0 and a seed for c1."""
    FULL = 2
    """One client's upload under a public key: c0 and c1."""
    SUM = 3
    """What the server hands to the key holder: c0 and c1 of a sum."""

    CUT_SEEDED = 4
    """As `SEEDED`, with as much of c0 as the numbers need."""
    CUT_FULL = 5
    """As `FULL`, with as much of c0 as the numbers need."""

    @property
    def halves(self) -> int:
        """How many of a ciphertext's two halves are written: 1 where a seed stands for c1."""
        return 1 if self in (Kind.SEEDED, Kind.CUT_SEEDED) else 2

    @property
    def seeded(self) -> bool:
        """Whether a seed stands for c1."""
        return self.halves == 1

    @property
    def cut(self) -> Kind:
        """The kind whose c0 is cut to what the numbers need; a sum is never cut."""
        return {Kind.SEEDED: Kind.CUT_SEEDED, Kind.FULL: Kind.CUT_FULL}.get(self, self)

    def kept(self, parameters: ParameterSet, numbers: int) -> int:
        """Words of c0 that a body has; a multiple of 8, as packing asks."""
        if self in (Kind.CUT_SEEDED, Kind.CUT_FULL):
            return min(parameters.degree, -(-numbers // 8) * 8)
        return parameters.degree

    def words(self, parameters: ParameterSet, numbers: int) -> int:
        """Words that a body of so many numbers has, over all its ciphertexts."""
        return parameters.ciphertexts(numbers) * (
            self.kept(parameters, numbers) + (self.halves - 1) * parameters.degree
        )


@dataclass(frozen=True)
class CipherVector:
    """A parsed body, whose words stay packed until they are asked for.

    Args:
        kind: which halves are there.
        numbers: how many numbers are inside.
        degree: N.
        kept: words of c0 that are there.
        seeds: 64 bytes for each ciphertext where they stand for c1, else empty.
        packed: all words.
    """

    kind: Kind
    numbers: int
    degree: int
    kept: int
    seeds: tuple[bytes, ...] = field(repr=False)
    packed: PackedWords = field(repr=False)

    def rows(self) -> Iterator[NDArray[np.uint64]]:
        """Every ciphertext's words `[1 or 2, N]`, all below q; zeros for what was cut."""
        if self.kept < self.degree:
            words = next(self.packed.runs())
            row = np.zeros((self.kind.halves, self.degree), np.uint64)
            row[0, : self.kept] = words[: self.kept]
            row[1:] = words[self.kept :].reshape(self.kind.halves - 1, self.degree)
            yield row
            return
        for run in self.packed.runs():
            yield from run.reshape(-1, self.kind.halves, self.degree)


def body_bytes(parameters: ParameterSet, numbers: int, kind: Kind) -> int:
    """Length of a body, the same whatever is inside."""
    seeds = parameters.ciphertexts(numbers) * SEED_BYTES if kind.seeded else 0
    return HEAD_BYTES + seeds + packed_bytes(kind.words(parameters, numbers), parameters.word_bits)


class BodyWriter:
    """The bytes of a vector, ciphertext by ciphertext: they lie in memory once.

    Args:
        parameters: the set of this federation.
        fingerprint: of the key in force, 32 bytes.
        kind: which halves are written.
        numbers: how many numbers are inside.
        place: `body_bytes` bytes to write to; memory of its own when left out.

    Raises:
        SecureSumError: a place of another length.
    """

    def __init__(
        self,
        parameters: ParameterSet,
        fingerprint: bytes,
        kind: Kind,
        numbers: int,
        place: memoryview | None = None,
    ) -> None:
        self._count, self._numbers, self._row = parameters.ciphertexts(numbers), numbers, 0
        start = HEAD_BYTES + (self._count * SEED_BYTES if kind.seeded else 0)
        length = body_bytes(parameters, numbers, kind)
        self._data = np.empty(length, np.uint8).data if place is None else place
        if len(self._data) != length:
            remedy = f"{length} bytes"
            raise SecureSumError("not the body's length", "place", len(self._data), remedy)
        words, self._kept = kind.words(parameters, numbers), kind.kept(parameters, numbers)
        self._packed = PackedWords(
            np.frombuffer(self._data, np.uint8)[start:], words, parameters.word_bits
        )
        self._run, self._filled, self._written = np.empty(min(RUN, words), np.uint64), 0, 0
        _HEAD.pack_into(self._data, 0, _MAGIC, kind, numbers, parameters.digest, fingerprint)

    def put(self, halves: Iterable[NDArray[np.uint64]], seed: bytes = b"") -> None:
        """The next ciphertext: words `[N]` of c0 and a seed of 64 bytes, or of both halves."""
        if self._row < self._count:
            self._data[HEAD_BYTES + self._row * SEED_BYTES :][: len(seed)] = seed
            for half, words in enumerate(halves):
                words = words if half else words[: self._kept]
                self._run[self._filled : self._filled + len(words)] = words
                self._filled += len(words)
                if self._filled == len(self._run):
                    self._pack()
        self._row += 1

    def close(self) -> memoryview:
        """The body. Raises SecureSumError: more or fewer ciphertexts than the numbers fill."""
        if self._row != self._count:
            problem = "the body is not filled as it must be"
            remedy = f"{self._count} ciphertexts for {self._numbers} numbers"
            raise SecureSumError(problem, "ciphertexts", self._row, remedy)
        self._pack()
        return self._data

    def _pack(self) -> None:
        self._packed.put(self._written, self._run[: self._filled])
        self._written, self._filled = self._written + self._filled, 0


def read_body(
    data: bytes | memoryview,
    parameters: ParameterSet,
    fingerprint: bytes,
    numbers: int,
    kinds: tuple[Kind, ...],
) -> CipherVector:
    """Parse strictly.

    Args:
        data: what arrived.
        parameters: the set of this federation.
        fingerprint: of the key in force, 32 bytes.
        numbers: how many numbers must be inside.
        kinds: which kinds are welcome here.

    Raises:
        RefusedError: `malformed`, `truncated`, `wrong-length`, `wrong-parameters`, `re-keyed`
            or `out-of-range`.
    """
    kind, found = _read_head(data, parameters, fingerprint, kinds)
    expected = body_bytes(parameters, numbers, kind)
    if found != numbers or len(data) != expected:
        short = found == numbers and len(data) < expected
        reason = Reason.TRUNCATED if short else Reason.WRONG_LENGTH
        problem = f"{numbers} numbers need {expected} bytes"
        raise _refuse(reason, problem, "length", (found, len(data)))
    return _contents(data, parameters, kind, numbers)


def _read_head(
    data: bytes | memoryview, parameters: ParameterSet, fingerprint: bytes, kinds: tuple[Kind, ...]
) -> tuple[Kind, int]:
    """(Kind, how many numbers the body says are inside); the rest of the head must fit."""
    if len(data) < HEAD_BYTES:
        raise _refuse(Reason.TRUNCATED, "shorter than its head", "length", len(data))
    magic, kind, numbers, digest, key = _HEAD.unpack_from(data)
    if magic != _MAGIC or kind not in {int(welcome) for welcome in kinds}:
        raise _refuse(Reason.MALFORMED, "not a ciphertext of the kind expected here", "kind", kind)
    if digest != parameters.digest:
        problem = f"made with another parameter set than {parameters.identifier}"
        raise _refuse(Reason.WRONG_PARAMETERS, problem, "parameters", digest.hex()[:8])
    if key != fingerprint:
        problem = f"made under another key than {fingerprint.hex()[:16]}"
        raise _refuse(Reason.RE_KEYED, problem, "key fingerprint", key.hex()[:16])
    return Kind(kind), numbers


def _contents(
    data: bytes | memoryview, parameters: ParameterSet, kind: Kind, numbers: int
) -> CipherVector:
    count = parameters.ciphertexts(numbers)
    start = HEAD_BYTES + (count * SEED_BYTES if kind.seeded else 0)
    starts = range(HEAD_BYTES, start, SEED_BYTES)
    seeds = tuple(bytes(data[first : first + SEED_BYTES]) for first in starts)
    words, raw = kind.words(parameters, numbers), np.frombuffer(data, np.uint8, offset=start)
    packed = PackedWords(raw, words, parameters.word_bits)
    if not packed.below(parameters.modulus):
        raise _refuse(
            Reason.OUT_OF_RANGE, "a word is not below the modulus", "ciphertext", parameters.name
        )
    kept = kind.kept(parameters, numbers)
    return CipherVector(kind, numbers, parameters.degree, kept, seeds, packed)


def _refuse(reason: Reason, problem: str, field: str, value: object) -> RefusedError:
    remedy = "send the bytes that the client wrote for this round, unchanged"
    return RefusedError(reason, problem, field, value, remedy)
