"""The counter's keystream under versions of `cryptography` that write in place, and under those
that want more room.
"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from secure_fl.ciphers import encrypt_into


class Older:
    """As cryptography 42 has it: room for fifteen bytes more is asked for before anything
    is encrypted.
    """

    def __init__(self) -> None:
        self._cipher = Cipher(AES(bytes(16)), CTR(bytes(16))).encryptor()

    def update(self, data: memoryview) -> bytes:
        return self._cipher.update(data)

    def update_into(self, data: memoryview, buf: memoryview) -> int:
        if len(buf) < len(data) + 15:
            raise ValueError(f"buffer must be at least {len(data) + 15} bytes for this payload")
        return self._cipher.update_into(data, buf)


@pytest.mark.parametrize("pieces", [(100,), (1, 7, 64), (4096, 5)])
def test_every_version_reads_one_keystream(pieces: tuple[int, ...]) -> None:
    newer = Cipher(AES(bytes(16)), CTR(bytes(16))).encryptor()
    whole = Cipher(AES(bytes(16)), CTR(bytes(16))).encryptor().update(bytes(sum(pieces)))
    for cipher in (newer, Older()):
        out = bytearray(sum(pieces))
        start = 0
        for size in pieces:
            encrypt_into(cipher, memoryview(bytes(size)), memoryview(out)[start : start + size])
            start += size
        assert bytes(out) == whole
