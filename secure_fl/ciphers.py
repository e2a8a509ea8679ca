"""A counter's keystream, under every version of `cryptography` that the project takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext


def encrypt_into(
    cipher: CipherContext, data: bytes | memoryview, out: bytearray | memoryview
) -> None:
    """Encrypt `data` into `out`, of as many bytes, without an array in between where the
    library can.

    Older versions of `cryptography` want a block more room than they fill, and say so before
    anything is encrypted.
    """
    try:
        cipher.update_into(data, out)
    except ValueError:
        out[:] = cipher.update(data)
