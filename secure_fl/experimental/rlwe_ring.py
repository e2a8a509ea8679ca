"""Exact arithmetic in Z_q[X]/(X^2048 + 1) with q = 2^50, in numpy: random elements, short elements,
products, bytes.

A residue is cut into two centred halves of 25 bits, which ride as real and imaginary part of one
complex transform of 2,048 points (twisted by the 4,096th roots of unity, so that X^2048 = −1). The
other factor is short.

Guarantee: products are exact. By Percival's bound (Math. Comp. 72, 2003, Theorem 5.1; u = 2^-53,
roots within 2u, twists within 4u) no coefficient is off by more than 193·u·‖z‖·‖f‖, where ‖z‖ ≤
2^30 and ‖f‖ ≤ 2^13 keep that below 0.19, so rounding finds the integer; a longer factor is cut into
digits of seven bits, each shorter than 2^12.
Assumes: a transform at least as accurate as the radix-2 one of the theorem (numpy's has radix 4 and
8: the same butterflies with fewer products).
Not covered: constant time; big-endian machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.key_streams import Slots, expand
from secure_fl.errors import SecureSumError
from secure_fl.he.bit_packing import PackedWords, packed_bytes
from secure_fl.secure_sum.layout import magnitude

Integers = NDArray[np.int64]
Complex = NDArray[np.complex128]

DEGREE = 2048
"""Coefficients of a ring element, N."""
MODULUS_BITS = 50
WIDEST_SHORT = 32
"""Largest magnitude of a short coefficient: a centred binomial of 64 coins, deviation 4."""
WIDEST_FACTOR = 2**13
"""Largest magnitude of a coefficient that `products` takes: 256 short ones summed."""
BYTES_PER_ELEMENT = packed_bytes(DEGREE, MODULUS_BITS)
GROUP = 16
"""Ring elements that one key makes: half a megabyte, which stays in a second-level cache."""

_MASK = np.uint64(2**MODULUS_BITS - 1)
_HALF_BITS = MODULUS_BITS // 2
_HALF_MASK, _HALF_SHIFT = np.uint64(2**_HALF_BITS - 1), np.uint64(_HALF_BITS)
_CENTRE = float(2 ** (_HALF_BITS - 1))
_RAISE = np.uint64(2 ** (_HALF_BITS - 1) * (1 + 2**_HALF_BITS))
_LONGEST = 2.0**13
"""Euclidean norm up to which a factor is multiplied in one piece."""
_DIGIT = 7


def groups(elements: int) -> Iterator[tuple[int, slice]]:
    """Numbers and ranges of the groups of at most `GROUP` elements."""
    starts = enumerate(range(0, elements, GROUP))
    return ((number, slice(start, min(start + GROUP, elements))) for number, start in starts)


def uniform_elements(key: bytes, group: int, count: int) -> Slots:
    """The first public elements of a group: uint64 `[count, N]`, low 50 bits of random words."""
    return expand(_group_key(b"uniform", key, group), count * DEGREE).reshape(count, DEGREE) & _MASK


def short_elements(key: bytes, group: int, count: int) -> Integers:
    """Short ones: int64 `[count, N]`, heads among 64 fair coins less 32, variance 16."""
    heads = _ones(expand(_group_key(b"short", key, group), count * DEGREE))
    return heads.view(np.int64).reshape(count, DEGREE) - WIDEST_SHORT


def products(elements: Slots, factor: Integers) -> Slots:
    """Each element times one factor, modulo q.

    Args:
        elements: uint64 `[R, N]`, below q.
        factor: int64 `[N]`, coefficients within ±2^13.

    Returns:
        uint64 `[R, N]`, below q.

    Raises:
        SecureSumError: a factor of another shape, or not short.
    """
    if factor.shape != (DEGREE,) or factor.dtype != np.int64 or magnitude(factor) > WIDEST_FACTOR:
        problem, remedy = "not a short ring element", f"int64 [{DEGREE}] within ±{WIDEST_FACTOR}"
        raise SecureSumError(problem, "factor", (factor.dtype, factor.shape), remedy)
    total: Slots = np.zeros(elements.shape, np.uint64)
    digits = [(_spectrum(digit), shift) for digit, shift in _digits(factor)]
    for _, rows in groups(len(elements)):
        transformed = _transform(elements[rows])
        for spectrum, shift in digits:
            total[rows] += _untransform(transformed * spectrum) << np.uint64(shift)
    total &= _MASK
    return total


def centred(residues: Slots) -> Integers:
    """Residues modulo q as the integers nearest to 0, int64; bits above q's are dropped."""
    spare = 64 - MODULUS_BITS
    return (residues << np.uint64(spare)).view(np.int64) >> spare


def reduced(integers: Integers) -> Slots:
    """Integers modulo q, uint64 of the same shape."""
    return integers.view(np.uint64) & _MASK


def to_bytes(elements: Slots) -> bytes:
    """50 bits a coefficient, as `bit_packing` packs them."""
    body = np.empty(len(elements) * BYTES_PER_ELEMENT, np.uint8)
    packed = PackedWords(body, elements.size, MODULUS_BITS)
    for group, rows in groups(len(elements)):
        packed.put(group * GROUP * DEGREE, elements[rows].reshape(-1))
    return body.tobytes()


def from_bytes(body: bytes, elements: int) -> Slots:
    """The inverse, uint64 `[elements, N]`. Raises SecureSumError: another length."""
    if len(body) != elements * BYTES_PER_ELEMENT:
        remedy = f"{elements * BYTES_PER_ELEMENT} bytes: refuse the upload"
        raise SecureSumError("not so many ring elements", "upload", f"{len(body)} bytes", remedy)
    count = elements * DEGREE
    packed = PackedWords(np.frombuffer(body, np.uint8), count, MODULUS_BITS)
    return packed.take(0, count).reshape(elements, DEGREE)


def _group_key(kind: bytes, key: bytes, group: int) -> bytes:
    named = b"secure_fl/secure-sum/rlwe/" + kind + b"/v1"
    return hashlib.sha256(named + group.to_bytes(8, "big") + key).digest()


def _ones(words: Slots) -> Slots:
    """Set bits of each word, by sums of neighbouring bits, pairs, nibbles; spoils `words`."""
    pairs, nibbles, octets = (np.uint64(0x0101010101010101 * byte) for byte in (0x55, 0x33, 0x0F))
    work = words >> np.uint64(1)
    work &= pairs
    words -= work
    np.right_shift(words, np.uint64(2), out=work)
    work &= nibbles
    words &= nibbles
    words += work
    np.right_shift(words, np.uint64(4), out=work)
    words += work
    words &= octets
    words *= np.uint64(0x0101010101010101)
    words >>= np.uint64(56)
    return words


def _digits(factor: Integers) -> list[tuple[Integers, int]]:
    """The factor as Σ digit·2^shift with digits that are short enough for one product each."""
    if float(np.dot(factor, factor)) <= _LONGEST**2:
        return [(factor, 0)]
    half = 1 << (_DIGIT - 1)
    low = ((factor + half) & ((1 << _DIGIT) - 1)) - half
    return [(low, 0), ((factor - low) >> _DIGIT, _DIGIT)]


@cache
def _twist() -> Complex:
    twist: Complex = np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)
    twist.flags.writeable = False
    return twist


def _spectrum(factor: Integers) -> Complex:
    spectrum: Complex = np.fft.fft(factor * _twist())
    return spectrum


def _transform(elements: Slots) -> Complex:
    """a = low + 2^25·high modulo q, both within ±2^24: raised by 2^24 to be cut, lowered after."""
    raised, halves = elements + _RAISE, np.empty(elements.shape, np.complex128)
    halves.real = raised & _HALF_MASK
    raised >>= _HALF_SHIFT
    halves.imag = raised & _HALF_MASK
    halves -= _CENTRE * (1 + 1j)
    halves *= _twist()
    transformed: Complex = np.fft.fft(halves, axis=1)
    return transformed


def _untransform(spectrum: Complex) -> Slots:
    halves = np.fft.ifft(spectrum, axis=1)
    halves *= _twist().conj()
    low, high = np.rint(halves.real).astype(np.int64), np.rint(halves.imag).astype(np.int64)
    return low.view(np.uint64) + (high.view(np.uint64) << _HALF_SHIFT)
