"""ChaCha20 against RFC 8439 and another implementation, and the deviates made of it against
the formula.
"""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import dispatch, gradient_operators, per_sample
from secure_fl_kernels.reference import chacha

KEY = bytes(range(32))
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)

BLOCKS = {
    "2.3.2": (
        KEY,
        "000000090000004a00000000",
        1,
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    "A.1 #1": (
        bytes(32),
        "00" * 12,
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    "A.1 #2": (
        bytes(32),
        "00" * 12,
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    "A.1 #3": (
        bytes(31) + b"\x01",
        "00" * 12,
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    "A.1 #4": (
        b"\x00\xff" + bytes(30),
        "00" * 12,
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    "A.1 #5": (
        bytes(32),
        "00" * 11 + "02",
        0,
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
}
"""Key, nonce, counter and keystream of single blocks; the names are the RFC's sections."""

CIPHERTEXT = (
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357"
    "1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
    "5af90bbf74a35be6b40b8eedf2785e42874d"
)


def keystream(key: bytes, nonce: bytes, counter: int, blocks: int) -> bytes:
    words = per_sample.chacha20_words(
        per_sample.little_endian_words(key), per_sample.little_endian_words(nonce), counter, blocks
    )
    return words.numpy().astype("<i4").tobytes()


def words(data: bytes) -> Tensor:
    return per_sample.little_endian_words(data)


@pytest.mark.parametrize("section", BLOCKS)
def test_blocks_of_the_standard(section: str) -> None:
    key, nonce, counter, expected = BLOCKS[section]
    assert keystream(key, bytes.fromhex(nonce), counter, 1).hex() == expected


def test_the_ciphertext_of_the_standard() -> None:
    stream = keystream(KEY, bytes.fromhex("000000000000004a00000000"), 1, 2)
    assert bytes(a ^ b for a, b in zip(SUNSCREEN, stream, strict=False)).hex() == CIPHERTEXT


@settings(max_examples=40, deadline=None)
@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=12, max_size=12),
    counter=st.integers(0, 2**32 - 9),
    blocks=st.integers(0, 9),
)
def test_agrees_with_another_implementation(
    key: bytes, nonce: bytes, counter: int, blocks: int
) -> None:
    algorithms = pytest.importorskip("cryptography.hazmat.primitives.ciphers.algorithms")
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    cipher = ciphers.Cipher(
        algorithms.ChaCha20(key, counter.to_bytes(4, "little") + nonce), mode=None
    ).encryptor()
    assert keystream(key, nonce, counter, blocks) == cipher.update(bytes(64 * blocks))


def test_long_streams_are_pieces_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    key, nonce = words(KEY), words(bytes(12))
    whole = per_sample.chacha20_words(key, nonce, 2**31 - 5, 20)
    normal = per_sample.chacha20_normal(key, nonce, 16 * 20 - 3, 1.5, 2**31 - 5)
    monkeypatch.setattr(gradient_operators, "_HELD", 7)
    assert torch.equal(per_sample.chacha20_words(key, nonce, 2**31 - 5, 20), whole)
    assert torch.equal(per_sample.chacha20_normal(key, nonce, 16 * 20 - 3, 1.5, 2**31 - 5), normal)


def test_the_last_block_is_given_and_the_counter_never_wraps() -> None:
    key, nonce = words(KEY), words(bytes(12))
    assert per_sample.chacha20_words(key, nonce, 2**32 - 1, 1).shape == (16,)
    for counter, blocks in ((2**32 - 1, 2), (2**32, 1), (-1, 1), (0, 2**32 + 1), (0, -1)):
        with pytest.raises(ValueError, match="counter of 32 bits"):
            per_sample.chacha20_words(key, nonce, counter, blocks)
    with pytest.raises(ValueError, match="counter of 32 bits"):
        per_sample.chacha20_normal(key, nonce, 17, 1.0, 2**32 - 1)


def test_what_is_wrong_is_said_without_the_key() -> None:
    key, nonce = words(b"\x11\x22\x33\x44" * 8), words(b"\x55\x66\x77\x88" * 3)
    wrong = (
        (key[:7], nonce),
        (key, nonce[:2]),
        (key.long(), nonce),
        (key, nonce.float()),
        (key, nonce.to("meta")),
        (key[None], nonce),
    )
    for bad in wrong:
        with pytest.raises((TypeError, ValueError)) as caught:
            per_sample.chacha20_words(*bad, 0, 1)
        assert not any(
            secret in str(caught.value)
            for secret in ("11", "22", "33", "44", str(int(key[0])), str(int(nonce[0])))
        )
    with pytest.raises(ValueError, match="33 bytes"):
        per_sample.little_endian_words(bytes(33))
    for count, std in ((1, -1.0), (1, float("nan")), (1, float("inf")), (-1, 1.0)):
        with pytest.raises(ValueError, match=r"std|count"):
            per_sample.chacha20_normal(key, nonce, count, std)


def test_deviates_are_normal_and_cut_where_documented() -> None:
    x = per_sample.chacha20_normal(words(KEY), words(bytes(12)), 400_001, 2.0).double() / 2
    assert x.shape == (400_001,)
    moments = [float((x**k).mean()) for k in (1, 2, 3, 4)]
    for moment, expected, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert abs(moment - expected) < 4 * sqrt(variance / len(x))
    distance = (torch.special.ndtr(x.sort().values) - torch.arange(len(x)) / len(x)).abs().max()
    assert distance < 1.63 / sqrt(len(x)), "Kolmogorov and Smirnov's distance, 1 % level"
    assert abs(float((x[:-1:2] * x[1::2]).mean())) < 4 / sqrt(len(x) / 2), (
        "pairs share a radius and are still uncorrelated"
    )
    extreme = chacha.normal(
        torch.tensor([0, 0, -1, 1 << 30, 0, -(1 << 31)], dtype=torch.int32), 1.0
    )
    assert extreme[0] == pytest.approx(sqrt(2 * 33 * log(2)))
    assert float(extreme.abs().max()) < 6.77
    assert extreme[4] == pytest.approx(-sqrt(2 * 33 * log(2)))
    assert bool(torch.isfinite(extreme).all())
    assert per_sample.chacha20_normal(words(KEY), words(bytes(12)), 5, 0.0).abs().max() == 0


def test_operators_keep_torchs_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    start = chacha.state(words(KEY), words(bytes(12)), 3)
    torch.library.opcheck(gradient_operators.chacha20_words, (start, 3))
    torch.library.opcheck(gradient_operators.chacha20_normal, (start, 37, 1.0))
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert torch.equal(gradient_operators.chacha20_words(start, 3), chacha.words(start, 3))
