"""Secrets sealed to one reader (X25519, HKDF-SHA256, ChaCha20-Poly1305), and under a key that
several know.

Guarantee: only the holder of the reader's private key opens a box, and only with the same context;
any change is noticed.
Assumes: X25519 (gap Diffie-Hellman), HKDF as a random oracle; the reader's public key is authentic
(it comes from the roster).
Not covered: who sealed it (put the box into a signed envelope); forward secrecy against theft of
the reader's key.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_fl.crypto.refusals import Reason, RefusedError

_PUBLIC, _TAG, _SALT = 32, 16, 32
SEALED_OVERHEAD = _PUBLIC + _TAG
"""Bytes that a box sealed to one reader is longer than its contents."""
SALTED_OVERHEAD = _SALT + _TAG
"""Bytes that one sealed under a known key is."""


def seal_to(reader: bytes, data: bytes, context: bytes) -> bytes:
    """Seal `data` for one reader.

    Args:
        reader: X25519 public key, 32 bytes.
        data: the secret.
        context: what it is for; authenticated, not sent.

    Returns:
        Ephemeral public key, then ciphertext and tag: 48 bytes more than `data`.

    Raises:
        RefusedError: `wrong-key` for a public key of low order or another length.
    """
    ephemeral = X25519PrivateKey.generate()
    mine = ephemeral.public_key().public_bytes_raw()
    key = _agreed(ephemeral, reader, mine + reader, context)
    return mine + ChaCha20Poly1305(key).encrypt(bytes(12), data, context)


def open_sealed(private: X25519PrivateKey, box: bytes, context: bytes) -> bytes:
    """Open a box. Raises RefusedError: `truncated`; `wrong-key`: not this key's or context's."""
    theirs, rest = _cut(box, _PUBLIC)
    key = _agreed(private, theirs, theirs + private.public_key().public_bytes_raw(), context)
    return _open(key, rest, context)


def seal_with(key: bytes, data: bytes, context: bytes) -> bytes:
    """Seal under a 32-byte key that several know; a random 32-byte salt makes each box its own key,
    so nonces cannot meet. Raises RefusedError: `wrong-key` for a key of another length.
    """
    salt = os.urandom(_SALT)
    return salt + ChaCha20Poly1305(_derive(_need(key), salt, context)).encrypt(
        bytes(12), data, context
    )


def open_with(key: bytes, box: bytes, context: bytes) -> bytes:
    """Open what `seal_with` made. Raises RefusedError: `truncated` or `wrong-key`."""
    salt, rest = _cut(box, _SALT)
    return _open(_derive(_need(key), salt, context), rest, context)


def _cut(box: bytes, head: int) -> tuple[bytes, bytes]:
    """A box as its head and what is sealed."""
    if len(box) < head + _TAG:
        problem, remedy = "shorter than its head", "ask for it again"
        raise RefusedError(Reason.TRUNCATED, problem, "sealed box", len(box), remedy)
    return box[:head], box[head:]


def _agreed(private: X25519PrivateKey, public: bytes, salt: bytes, context: bytes) -> bytes:
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        problem, remedy = "not a usable X25519 key", "use the agreement key from the roster"
        raise RefusedError(
            Reason.WRONG_KEY, problem, "public key", f"{len(public)} bytes", remedy
        ) from None
    return _derive(secret, salt, context)


def _derive(secret: bytes, salt: bytes, context: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"secure-fl sealed box 1|" + context).derive(secret)


def _need(key: bytes) -> bytes:
    if len(key) != 32:
        problem, remedy = "32 bytes are needed", "use a key from the ceremony"
        raise RefusedError(Reason.WRONG_KEY, problem, "sealing key", f"{len(key)} bytes", remedy)
    return key


def _open(key: bytes, box: bytes, context: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), box, context)
    except InvalidTag:
        remedy = "it was sealed to another key or purpose, or changed: ask for it again"
        raise RefusedError(
            Reason.WRONG_KEY, "does not open", "sealed box", f"{len(box)} bytes", remedy
        ) from None
