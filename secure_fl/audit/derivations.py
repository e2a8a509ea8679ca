"""How secrets are derived, written down a second time: with other libraries than the code that is
audited calls, from the protocol's description alone.

| secret | is |
|---|---|
| a pair's mask seeds | HKDF-SHA256 of the X25519 secret, with federation, round, pair |
| words of masks | AES-128-CTR of a seed's first half, from the other one as counter |
| a stream's key | HKDF-SHA256 of the source's 32 bytes, with client, round and purpose |
| words of noise | AES-256-CTR of that key, from counter 0 |
| a shared secret | at 0, a polynomial over 2^521 − 1 with a coefficient for each share needed |

A seed that was narrowed on its way, to 32 bits say, looks as random as any other; that it is not
what follows from the whole secret is seen here, however it was narrowed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_fl.crypto.shares import PRIME, Share

SEED_BYTES = 32
_AT_ONCE = 255
"""Seeds that one call of HKDF gives."""
_GROUP = 4096
"""Words of a mask whose keystream lies together."""
_PAIR = b"secure_fl/secure-sum/pair-seed/v2"
_NOISE = b"secure_fl noise 1"


def pair_seed(
    private: bytes, public: bytes, federation: str, number: int, block: int, pair: tuple[int, int]
) -> bytes:
    """The seed of one block's mask between two clients.

    Args:
        private, public: one's secret X25519 key and the other's public one, raw.
        federation, number: its name, and the round's number.
        block: of the upload.
        pair: both positions, ascending.
    """
    theirs = X25519PublicKey.from_public_bytes(public)
    agreed = X25519PrivateKey.from_private_bytes(private).exchange(theirs)
    first = block - block % _AT_ONCE
    name = federation.encode()
    info = _PAIR + struct.pack(">I", len(name)) + name + struct.pack(">QIII", number, first, *pair)
    length = SEED_BYTES * (block - first + 1)
    return HKDF(SHA256(), length, salt=None, info=info).derive(agreed)[-SEED_BYTES:]


def mask_words(seed: bytes, count: int, modulus: int) -> list[int | None]:
    """The first words of a mask, at most 4,096; None where one is drawn again by rejection.

    Modulo 2^64 a word is 8 bytes of the keystream. Modulo a smaller number its lower 32 bits are 4
    of the first 16,384 bytes, and its higher ones are in one of the bytes behind.
    """
    cipher = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
    if modulus == 1 << 64:
        return list(struct.unpack(f"<{count}Q", cipher.update(bytes(8 * count))))
    stream = cipher.update(bytes(5 * _GROUP))
    bits = (1 << modulus.bit_length()) - 1
    words = (
        (stream[4 * _GROUP + at] << 32 | int.from_bytes(stream[4 * at : 4 * at + 4], "little"))
        & bits
        for at in range(count)
    )
    return [word if word < modulus else None for word in words]


def noise_key(source: bytes, client: int, number: int, purpose: str) -> bytes:
    """The key of one stream of noise, from its source's."""
    info = _NOISE + client.to_bytes(8, "big", signed=True) + number.to_bytes(8, "big", signed=True)
    first = hmac.new(bytes(32), source, hashlib.sha256).digest()
    return hmac.new(first, info + purpose.encode() + b"\1", hashlib.sha256).digest()


def noise_words(key: bytes, count: int) -> bytes:
    """The first words of a stream, 8 bytes each."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))


def at_zero(shares: Sequence[Share]) -> int:
    """What these shares open together, by Lagrange's formula."""
    total = 0
    for one in shares:
        above, below = 1, 1
        for other in shares:
            if other.index != one.index:
                above = above * -other.index % PRIME
                below = below * (one.index - other.index) % PRIME
        total += one.value * above * pow(below, -1, PRIME)
    return total % PRIME
