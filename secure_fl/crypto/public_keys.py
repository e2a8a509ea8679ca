"""Public keys that would give away what they are to protect: refused wherever one comes in.

An X25519 key of low order makes the same shared secret with everybody, an Ed25519 key of small
order lets anybody sign in its name, and a key with two spellings passes for two keys. Sources: RFC
7748 §6.1, RFC 8032 §5.1.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secure_fl.crypto.refusals import Reason, RefusedError

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_PROBE = X25519PrivateKey.from_private_bytes(bytes(32))
"""Any scalar will do: all are multiples of 8, which take every point of low order to zero."""


def check_agreement_key(key: bytes, owner: str) -> None:
    """Refuse an X25519 public key that is not 32 bytes in their one spelling, or of low order.

    Args:
        key: as it arrived.
        owner: whose it claims to be, for the message.

    Raises:
        RefusedError: `wrong-key`.
    """
    if not _agrees(key):
        raise _refused("X25519", owner)


def check_signing_key(key: bytes, owner: str) -> None:
    """Refuse an Ed25519 key in another spelling, on no curve or of small order: `wrong-key`."""
    if not _signs(key):
        raise _refused("Ed25519", owner)


@lru_cache(maxsize=1 << 14)
def _agrees(key: bytes) -> bool:
    if len(key) != 32 or int.from_bytes(key, "little") >= _P:
        return False
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1 << 14)
def _signs(key: bytes) -> bool:
    """x² of a point follows from y; doubling a point of small order three times ends at y = 1."""
    if len(key) != 32:
        return False
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    if y >= _P:
        return False
    x_square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_square, (_P - 1) // 2, _P) == _P - 1:
        return False
    for _ in range(3):
        # y of 2P is (y² + x²)/(1 − d·x²·y²) on −x² + y² = 1 + d·x²·y², and x² follows from
        # the curve
        y = (y * y + x_square) * pow(1 - _D * x_square * y * y, -1, _P) % _P
        x_square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    return y != 1


def _refused(kind: str, owner: str) -> RefusedError:
    remedy = "make a new identity with `secure-fl keys new`; in a round, this sender is left out"
    return RefusedError(Reason.WRONG_KEY, f"not a usable {kind} key", "public key", owner, remedy)
