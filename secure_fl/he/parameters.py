"""Parameter sets of the homomorphic backends, and their identifiers.

A set is pinned by its primes, not by bit lengths alone: two libraries may pick other primes of the
same length, and their ciphertexts would add without a word. `identifier` is short and readable,
`digest` is what messages carry.

Their security levels are those of the Homomorphic Encryption Standard 1.1 (November 2018) for
ternary secrets and error deviation 3.2; `tests` hold them against its tables. ePrint 2024/463 is
the newer guideline.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

KeyHolder = Literal["clients", "authority"]

BATCHING_PRIME = 1_099_511_480_321
"""Plaintext modulus t: the largest prime below 2^40 that is 1 modulo 8192."""


@dataclass(frozen=True)
class ParameterSet:
    """One ring, its moduli and its plaintext space.

    Args:
        name: short and unique, e.g. `bfv-4096-54.55-40`.
        scheme: `bfv` (exact) or `ckks` (approximate).
        degree: N, coefficients a polynomial.
        primes: moduli of keys, in order; the last is the special prime, which ciphertexts never
            use, where there are two or more.
        plain_modulus: t for `bfv`, 0 for `ckks`.
        scale_bits: log2 of CKKS's scale, 0 for `bfv`.
    """

    name: str
    scheme: Literal["bfv", "ckks"]
    degree: int
    primes: tuple[int, ...]
    plain_modulus: int = 0
    scale_bits: int = 0

    @property
    def modulus(self) -> int:
        """q of ciphertexts. One prime: the sets here leave only the special prime to keys."""
        return self.primes[0]

    @property
    def word_bits(self) -> int:
        """Bits of a ciphertext word."""
        return self.modulus.bit_length()

    @property
    def capacity(self) -> int:
        """Numbers a ciphertext carries: N coefficients for `bfv`, N/2 slots for `ckks`."""
        return self.degree if self.scheme == "bfv" else self.degree // 2

    @property
    def lazy_additions(self) -> int:
        """Words below q whose plain sum fits 64 bits: 1024 for 54-bit q, 16 for 60-bit q."""
        return (2**64 - 1) // (self.modulus - 1)

    @property
    def digest(self) -> bytes:
        """32 bytes that name every number in the set."""
        text = (
            "secure-fl parameters "
            f"1|{self.scheme}|{self.degree}|{self.primes}|{self.plain_modulus}|{self.scale_bits}"
        )
        return hashlib.sha256(text.encode("ascii")).digest()

    @property
    def identifier(self) -> str:
        """What headers carry: name and 8 hex digits of `digest`: `bfv-4096-54.55-40/1f2e3d4c`."""
        return f"{self.name}/{self.digest.hex()[:8]}"

    def ciphertexts(self, slots: int) -> int:
        """Ciphertexts that `slots` numbers fill, the last one padded."""
        return -(-slots // self.capacity)


_PRIMES = (18_014_398_509_309_953, 36_028_797_018_652_673)
BFV_4096 = ParameterSet("bfv-4096-54.55-40", "bfv", 4096, _PRIMES, BATCHING_PRIME)
"""The default where clients hold the key: 54-bit ciphertexts, a special prime of 55 bits."""

BFV_4096_58 = ParameterSet(
    "bfv-4096-58-40", "bfv", 4096, (288_230_376_151_130_113,), BATCHING_PRIME
)
"""The default where an authority holds the key. One prime of 58 bits keeps 256 bits (classical; 192
quantum) where `BFV_4096` keeps 128 (below 128 quantum) and encrypts a third faster with the same
noise budget, for 7.31 instead of 6.80 bytes a field.
"""

PARAMETER_SETS = (BFV_4096, BFV_4096_58)
