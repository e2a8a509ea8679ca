"""Parameter sets of the homomorphic backends, their identifiers, and what the Homomorphic Encryption Standard says of them.

A set is pinned by its primes, not by bit lengths alone: two libraries may pick other primes of the same length, and their
ciphertexts would add without a word. `identifier` is short and readable, `digest` is what messages carry.

Source of the bounds: Homomorphic Encryption Security Standard 1.1 (November 2018), tables for ternary secrets, error deviation
3.2, as also printed in ePrint 2019/939 and in OpenFHE's `stdlatticeparms`. ePrint 2024/463 is the newer guideline.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from secure_fl.errors import SecureSumError

KeyHolder = Literal["clients", "authority"]

BATCHING_PRIME = 1_099_511_480_321
"""Plaintext modulus t: the largest prime below 2^40 that is 1 modulo 8192."""

LEVELS = (256, 192, 128)
CLASSICAL = {
    1024: (14, 19, 27),
    2048: (29, 37, 54),
    4096: (58, 75, 109),
    8192: (118, 152, 218),
    16384: (237, 305, 438),
    32768: (476, 611, 881),
}
"""Degree -> largest log2 q at 256, 192 and 128 bits against classical attacks, secret ternary."""
QUANTUM = {
    1024: (13, 17, 25),
    2048: (27, 35, 51),
    4096: (54, 70, 101),
    8192: (109, 141, 202),
    16384: (220, 284, 411),
    32768: (443, 571, 827),
}
"""The same against quantum attacks."""


@dataclass(frozen=True)
class SecurityLevel:
    """Bits of security by the standard's table; 0 where the modulus is above the table's bound for 128 bits."""

    classical: int
    quantum: int

    def __str__(self) -> str:
        return f"{self.classical or '<128'} classical, {self.quantum or '<128'} quantum"


@dataclass(frozen=True)
class ParameterSet:
    """One ring, its moduli and its plaintext space.

    Args:
        name: short and unique, e.g. `bfv-4096-54.55-40`.
        scheme: `bfv` (exact) or `ckks` (approximate).
        degree: N, coefficients a polynomial.
        primes: moduli of keys, in order; the last is the special prime, which ciphertexts never use, where there are two or more.
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
        """Words below q that fit into 64 bits when added without reduction: 1024 for 54-bit q, 16 for 60-bit q."""
        return (2**64 - 1) // (self.modulus - 1)

    @property
    def digest(self) -> bytes:
        """32 bytes that name every number in the set."""
        text = f"secure-fl parameters 1|{self.scheme}|{self.degree}|{self.primes}|{self.plain_modulus}|{self.scale_bits}"
        return hashlib.sha256(text.encode("ascii")).digest()

    @property
    def identifier(self) -> str:
        """What headers carry: the name and eight hex digits of `digest`, e.g. `bfv-4096-54.55-40/1f2e3d4c`."""
        return f"{self.name}/{self.digest.hex()[:8]}"

    def ciphertexts(self, slots: int) -> int:
        """Ciphertexts that `slots` numbers fill, the last one padded."""
        return -(-slots // self.capacity)

    def security_level(self, key_holder: KeyHolder) -> SecurityLevel:
        """Level of everything an outsider may see.

        `clients`: only symmetric ciphertexts modulo q are ever published, so q counts. `authority`: the public key is published
        modulo all primes, so their product counts.
        """
        product = self.modulus
        if key_holder == "authority":
            for prime in self.primes[1:]:
                product *= prime
        return level(self.degree, product.bit_length())


def level(degree: int, modulus_bits: int) -> SecurityLevel:
    """Security of a ternary-secret RLWE sample, by the standard's table.

    Args:
        degree: ring dimension N.
        modulus_bits: log2 q, rounded up.

    Raises:
        SecureSumError: a degree the table has no row for.
    """
    if degree not in CLASSICAL:
        raise SecureSumError("no row in the standard's table", field="degree", value=degree, remedy=f"use one of {sorted(CLASSICAL)}")
    classical, quantum = (
        next((bits for bits, bound in zip(LEVELS, table[degree], strict=True) if modulus_bits <= bound), 0) for table in (CLASSICAL, QUANTUM)
    )
    return SecurityLevel(classical, quantum)


BFV_4096 = ParameterSet("bfv-4096-54.55-40", "bfv", 4096, (18_014_398_509_309_953, 36_028_797_018_652_673), BATCHING_PRIME)
"""The default where clients hold the key: 54-bit ciphertexts, a special prime of 55 bits."""

BFV_4096_58 = ParameterSet("bfv-4096-58-40", "bfv", 4096, (288_230_376_151_130_113,), BATCHING_PRIME)
"""The default where an authority holds the key. One prime of 58 bits keeps 256 bits (classical; 192 quantum) where `BFV_4096` keeps 128
(below 128 quantum) and encrypts a third faster with the same noise budget, for 7.31 instead of 6.80 bytes a field."""

CKKS_8192 = ParameterSet("ckks-8192-60.60-32", "ckks", 8192, (1_152_921_504_606_748_673, 1_152_921_504_606_830_593), scale_bits=32)
"""Compatibility only."""

PARAMETER_SETS = (BFV_4096, BFV_4096_58, CKKS_8192)


def parameter_set(identifier: str) -> ParameterSet:
    """The set that a name or an identifier stands for.

    Raises:
        SecureSumError: none does.
    """
    for known in PARAMETER_SETS:
        if identifier in (known.name, known.identifier):
            return known
    remedy = f"use one of {[known.name for known in PARAMETER_SETS]}"
    raise SecureSumError("unknown parameter set", field="parameters", value=identifier, remedy=remedy)
