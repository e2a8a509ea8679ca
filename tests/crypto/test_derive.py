"""Derived keys are HKDF's, by RFC 5869's own vectors and by another program."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.derive import hkdf


def test_the_vectors_of_the_rfc() -> None:
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert hkdf(bytes([11] * 22), salt, info, 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(bytes([11] * 22), b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@given(
    st.binary(min_size=1, max_size=80),
    st.binary(max_size=80),
    st.binary(max_size=200),
    st.integers(1, 255 * 32),
)
def test_another_program_derives_the_same(
    secret: bytes, salt: bytes, info: bytes, length: int
) -> None:
    theirs = HKDF(SHA256(), length, salt or None, info).derive(secret)
    assert hkdf(secret, salt, info, length) == theirs


@pytest.mark.parametrize("length", [0, -1, 255 * 32 + 1])
def test_lengths_that_hkdf_does_not_give_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="HKDF"):
        hkdf(bytes(32), b"", b"", length)
