"""The mask generator: equal at both ends, exact modulo any modulus, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.crypto.key_streams import RUN, WORDS, SignedStreams, add_streams, expand, reduce
from secure_fl.errors import SecureSumError
from secure_fl.he.parameters import BATCHING_PRIME

KEY = bytes(range(32))
HALF = 2**39 + 7
"""A modulus at which half of all words are rejected."""


def keystream(key: bytes, first: int) -> Iterator[int]:
    """Bytes of AES-128 in counter mode, made block by block from the bare cipher; `first` counters
    further on.
    """
    cipher = Cipher(algorithms.AES(key[:16]), modes.ECB()).encryptor()
    counter = int.from_bytes(key[16:], "big") + first
    while True:
        yield from cipher.update((counter % 2**128).to_bytes(16, "big"))
        counter += 1


def slow(key: bytes, slots: int, modulus: int) -> list[int]:
    """The stream as the module's text defines it, word by word."""
    stream = keystream(key, 0)
    if modulus == WORDS:
        return [
            int.from_bytes(bytes(next(stream) for _ in range(8)), "little") for _ in range(slots)
        ]
    spare, bits, words = keystream(key, 2**127), modulus.bit_length(), list[int]()
    while len(words) < slots:
        low = [int.from_bytes(bytes(next(stream) for _ in range(4)), "little") for _ in range(4096)]
        for word in [half + (next(stream) << 32) for half in low]:
            kept = word % 2**bits
            while kept >= modulus:
                kept = int.from_bytes(bytes(next(spare) for _ in range(5)), "little") % 2**bits
            words.append(kept)
    return words[:slots]


@pytest.mark.parametrize("modulus", [WORDS, BATCHING_PRIME, HALF, 2**33 - 9, 2**32 + 15, 2**36 - 5])
@pytest.mark.parametrize("slots", [0, 1, 4096, 4097, 9000])
@pytest.mark.parametrize(
    "key", [KEY, bytes(16) + b"\xff" * 16], ids=["counting", "at the counter's end"]
)
def test_equal_to_the_definition(modulus: int, slots: int, key: bytes) -> None:
    assert expand(key, slots, modulus).tolist() == slow(key, slots, modulus)


VECTORS = {
    WORDS: "0b5db2397c8d8537807f9e16d16a1043667360e5040553351307f762c8c81b9f",
    BATCHING_PRIME: "64c4509013cd997c21108925220d9aee8c1bb6506c2bf482edc50b790446e14c",
    HALF: "075900478067df2a09fcc42742c6f54915d2708f7532f561b42ad2c2bc60b3fd",
}


@pytest.mark.parametrize("modulus", VECTORS)
def test_frozen_vectors(modulus: int) -> None:
    """100,000 residues: both ends of a federation must agree, whatever versions they run."""
    assert (
        hashlib.sha256(expand(KEY, 100_000, modulus).astype("<u8").tobytes()).hexdigest()
        == VECTORS[modulus]
    )


def test_first_words_are_the_standards() -> None:
    """FIPS 197, appendix C.1: key 00…0f, block 00112233…ff."""
    key = bytes(range(16)) + bytes.fromhex("00112233445566778899aabbccddeeff")
    assert expand(key, 2).astype("<u8").tobytes().hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@settings(max_examples=25)
@given(
    st.integers(0, 70_000), st.integers(0, 70_000), st.sampled_from([WORDS, BATCHING_PRIME, HALF])
)
def test_a_longer_stream_begins_like_a_shorter_one(short: int, long: int, modulus: int) -> None:
    short, long = sorted((short, long))
    assert np.array_equal(expand(KEY, long, modulus)[:short], expand(KEY, short, modulus))


@pytest.mark.parametrize("modulus", [WORDS, BATCHING_PRIME, HALF])
def test_lazy_sums_are_sums(modulus: int) -> None:
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2**39, 36_000).astype(np.uint64)
    terms = [(rng.bytes(32), int(sign)) for sign in rng.choice([-1, 1], 9)]
    vector = start.copy()
    add_streams(vector, terms, modulus)
    exact = start.astype(object)
    for key, sign in terms:
        exact = exact + sign * expand(key, 36_000, modulus).astype(object)
    assert np.array_equal(vector.astype(object), exact % modulus)
    add_streams(vector, [(key, -sign) for key, sign in terms], modulus)
    assert np.array_equal(vector, start)


def test_reduce_brings_lazy_sums_back() -> None:
    lazy = np.array([0, BATCHING_PRIME - 1, BATCHING_PRIME, 2**62, 2**63 - 1], np.uint64)
    exact = [int(value) % BATCHING_PRIME for value in lazy.tolist()]
    reduce(lazy, BATCHING_PRIME)
    assert lazy.tolist() == exact


def test_rejection_leaves_no_bias() -> None:
    """Modulo 2^39+7 a remainder in place of rejection would double the odds of small residues; a
    fixed alarm rate of 1e-9.
    """
    from scipy.stats import chisquare

    words = expand(KEY, 200_000, HALF)
    counts = np.bincount((words.astype(object) * 64 // HALF).astype(int), minlength=64)
    assert chisquare(counts).pvalue > 1e-9
    biased = expand(KEY, 200_000, WORDS) % np.uint64(2**40) % np.uint64(HALF * 3 // 4)
    counts = np.bincount((biased.astype(object) * 64 // (HALF * 3 // 4)).astype(int), minlength=64)
    assert chisquare(counts).pvalue < 1e-9


def test_refusals_name_no_key() -> None:
    for key in (b"", bytes(16), bytes(33), bytearray(32)):
        with pytest.raises(SecureSumError, match="32 bytes") as caught:
            expand(key, 4)  # type: ignore[arg-type]
        assert "hidden" in str(caught.value)
    for modulus in (0, 1, 97, 2**32 - 1, 2**40 + 1, 2**41, 2**63, 2**65):
        with pytest.raises(SecureSumError, match="modulus"):
            expand(KEY, 4, modulus)
    for vector in (np.zeros(4), np.zeros((2, 2), np.uint64), np.zeros(8, np.uint64)[::2], [0]):
        with pytest.raises(SecureSumError, match="uint64"):
            add_streams(vector, [(KEY, 1)], WORDS)  # type: ignore[arg-type]
    for sign in (0, 2):
        with pytest.raises(SecureSumError, match="signs"):
            add_streams(np.zeros(4, np.uint64), [(KEY, sign)], WORDS)
    with pytest.raises(SecureSumError, match="negative"):
        expand(KEY, -1)


@pytest.mark.parametrize("modulus", [WORDS, BATCHING_PRIME])
def test_runs_that_the_streams_cannot_follow_are_refused(modulus: int) -> None:
    """After a run of another multiple the streams are beyond it, and the next one would be masked
    with other words than at the server.
    """
    streams = SignedStreams([(KEY, 1)], modulus, longest=8192)
    runs = [np.zeros(length, np.uint64) for length in (8192, 4096, 100)]
    for run in runs:
        streams.add_to(run)
    assert np.array_equal(np.concatenate(runs), expand(KEY, 12_388, modulus))
    with pytest.raises(SecureSumError, match="do not go on") as caught:
        streams.add_to(np.zeros(4096, np.uint64))
    assert caught.value.field == "run"
    with pytest.raises(SecureSumError, match="at most 8192"):
        SignedStreams([(KEY, 1)], modulus, longest=8192).add_to(np.zeros(RUN, np.uint64))
