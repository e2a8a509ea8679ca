"""One way to read a counter's keystream, under every version of `cryptography` that the project takes."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import Buffer


class StreamCipher(Protocol):
    """A context of `cryptography` that encrypts in counter mode."""

    def update(self, data: Buffer) -> bytes:
        """The next bytes, encrypted."""

    def update_into(self, data: Buffer, buf: Buffer) -> int:
        """The same, written to `buf`."""


def encrypt_into(cipher: StreamCipher, data: memoryview, out: memoryview) -> None:
    """Encrypt `data` into `out`, of as many bytes, without an array in between where the library can.

    Older versions of `cryptography` want a block more room than they fill, and say so before anything is encrypted.
    """
    try:
        cipher.update_into(data, out)
    except ValueError:
        out[:] = cipher.update(data)
