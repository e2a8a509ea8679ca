"""What the Homomorphic Encryption Standard says of a parameter set.

Source: Homomorphic Encryption Security Standard 1.1 (November 2018), tables for ternary secrets,
error deviation 3.2, as also printed in ePrint 2019/939.
"""

from __future__ import annotations

from math import prod

from secure_fl.he.parameters import KeyHolder, ParameterSet

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


def level(degree: int, modulus_bits: int) -> tuple[int, int]:
    """Bits of security of a ternary-secret RLWE sample, classical and quantum; 0 above the bound
    for 128 bits.
    """
    tables = (CLASSICAL, QUANTUM)
    classical, quantum = (
        next(
            (
                bits
                for bits, bound in zip(LEVELS, table[degree], strict=True)
                if modulus_bits <= bound
            ),
            0,
        )
        for table in tables
    )
    return classical, quantum


def security_level(parameters: ParameterSet, key_holder: KeyHolder) -> tuple[int, int]:
    """Level of everything an outsider may see.

    `clients`: only symmetric ciphertexts modulo q are ever published, so q counts. `authority`: the
    public key is published modulo all primes, so their product counts.
    """
    published = parameters.primes if key_holder == "authority" else parameters.primes[:1]
    return level(parameters.degree, prod(published).bit_length())
