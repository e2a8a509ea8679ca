"""Sealed boxes, to one reader's key or under a key that several share: they open with the right
key, in the right place, whole.
"""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import SEALED_OVERHEAD, open_sealed, open_with, seal_to, seal_with

SECRET = b"a secret that must not be seen"


def test_sealed_boxes() -> None:
    reader, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = reader.public_key().public_bytes_raw()
    box = seal_to(public, SECRET, b"for this")
    assert len(box) == len(SECRET) + SEALED_OVERHEAD
    assert open_sealed(reader, box, b"for this") == SECRET
    assert seal_to(public, SECRET, b"for this") != box
    flipped = box[:-1] + bytes([box[-1] ^ 1])
    for key, data, context, reason in (
        (other, box, b"for this", Reason.WRONG_KEY),
        (reader, box, b"for that", Reason.WRONG_KEY),
        (reader, flipped, b"for this", Reason.WRONG_KEY),
        (reader, bytes(32) + box[32:], b"for this", Reason.WRONG_KEY),
        (reader, box[:47], b"for this", Reason.TRUNCATED),
    ):
        with pytest.raises(RefusedError) as caught:
            open_sealed(key, data, context)
        assert caught.value.reason is reason
        assert SECRET.decode() not in str(caught.value)
    for low_order in (bytes(32), bytes([1]) + bytes(31), b"short"):
        with pytest.raises(RefusedError):
            seal_to(low_order, SECRET, b"")


def test_shared_boxes() -> None:
    key = os.urandom(32)
    box = seal_with(key, SECRET, b"models 3")
    assert open_with(key, box, b"models 3") == SECRET
    assert len({seal_with(key, SECRET, b"")[:32] for _ in range(50)}) == 50, "no salt twice"
    assert len({seal_with(key, SECRET, b"")[32:] for _ in range(50)}) == 50, (
        "the salt makes another key: the nonce is always zero"
    )
    for wrong, data, context in (
        (os.urandom(32), box, b"models 3"),
        (key, box, b"models 4"),
        (key, box[:40], b"models 3"),
        (b"short", box, b"models 3"),
    ):
        with pytest.raises(RefusedError):
            open_with(wrong, data, context)
