"""Boxes of shares between two clients, with tags by which others tell whether a share was dealt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secure_fl.crypto.derive import hkdf
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.shares import SHARE_BYTES, is_share
from secure_fl.errors import SecureSumError

TAG_BYTES = 16
"""Of a share: enough that nobody finds another share for it."""


def agreed_key(private: X25519PrivateKey, public: bytes, context: bytes) -> bytes:
    """The 32-byte key that two clients know: each box is authenticated by it and opens for nobody
    else.
    """
    return hkdf(private.exchange(X25519PublicKey.from_public_bytes(public)), b"", context, 32)


def closed(key: bytes, context: bytes, rows: Sequence[bytes]) -> bytes:
    """Shares, sealed, behind the tag of each: who sees the tags can tell whether a share that is
    shown later was dealt.
    """
    return b"".join(tags(context, rows)) + seal_with(key, b"".join(rows), context)


def opened(
    key: bytes, context: bytes, box: bytes, *, count: int, threshold: int, index: int
) -> list[bytes] | None:
    """So many shares of this threshold and index; None where the box holds anything else."""
    shown = box[: TAG_BYTES * count]
    try:
        contents = open_with(key, box[len(shown) :], context)
    except SecureSumError:
        return None
    rows = [contents[start : start + SHARE_BYTES] for start in range(0, len(contents), SHARE_BYTES)]
    whole = len(rows) == count and all(is_share(row, threshold, index) for row in rows)
    return rows if whole and shown == b"".join(tags(context, rows)) else None


def tags(context: bytes, shares: Iterable[bytes]) -> list[bytes]:
    """16 bytes for each share of a box: they tell whether a share is the one that was dealt, and
    nothing to who cannot guess it.

    Args:
        context: of the box.
        shares: each of a secret of 256 bits.
    """
    label = b"secure-fl share tag 1|" + context
    return [hashlib.sha256(label + share).digest()[:TAG_BYTES] for share in shares]
