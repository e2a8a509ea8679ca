"""Words packed to their bits come back, and one beyond a bound is seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.he.bit_packing import PackedWords, packed_bytes


@given(st.integers(1, 63), st.integers(0, 2**32))
def test_words_survive_packing(bits: int, seed: int) -> None:
    words = np.random.default_rng(seed).integers(0, 2**bits, 64, dtype=np.uint64)
    words[0], words[1] = 0, 2**bits - 1
    packed = PackedWords(np.zeros(packed_bytes(64, bits), np.uint8), 64, bits)
    for first in (40, 0, 8):
        packed.put(first, words[first:] if first == 40 else words[first : 8 if first == 0 else 40])
    np.testing.assert_array_equal(packed.take(0, 64), words)
    np.testing.assert_array_equal(packed.take(16, 24), words[16:24])
    np.testing.assert_array_equal(np.concatenate(list(packed.runs())), words)


@given(
    st.integers(1, 63),
    st.integers(0, 2**32),
    st.sampled_from((0.5, 1.0)),
    st.sampled_from((0, 4095, 4096, 8191, 8192, 8199)),
)
def test_a_word_beyond_a_bound_is_seen(bits: int, seed: int, share: float, place: int) -> None:
    """For bounds just below 2^bits, whose high bits are ones, and for others; whatever piece it is
    in: the last has eight words.
    """
    random = np.random.default_rng(seed)
    bound = max(1, int(2**bits * share) - int(random.integers(2 ** (bits // 3))))
    words = random.integers(0, bound, 8200, dtype=np.uint64)
    packed = PackedWords(np.zeros(packed_bytes(8200, bits), np.uint8), 8200, bits)
    packed.put(0, words)
    assert packed.below(bound)
    if bound < 2**bits:
        words[place] = bound
        packed.put(0, words)
        assert not packed.below(bound)
