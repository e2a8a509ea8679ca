"""ChaCha20 in Triton gives the reference's words to the bit, and its deviates to
float32's accuracy.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import per_sample
from secure_fl_kernels.reference import chacha

pytestmark = [pytest.mark.triton, pytest.mark.gpu]

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
gpu = pytest.importorskip("secure_fl_kernels.gpu.chacha")
two_deviates = gpu._normal

few = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@triton.jit
def pairs_kernel(WORDS, ALONG, ACROSS, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    lane = tl.arange(0, BLOCK)
    first = tl.load(WORDS + 2 * lane, mask=lane < count, other=0).to(tl.uint32, bitcast=True)
    second = tl.load(WORDS + 2 * lane + 1, mask=lane < count, other=0).to(tl.uint32, bitcast=True)
    along, across = two_deviates(first, second, 1.0)
    tl.store(ALONG + lane, along, mask=lane < count)
    tl.store(ACROSS + lane, across, mask=lane < count)


def start(key: bytes, nonce: bytes, counter: int) -> Tensor:
    return chacha.state(
        per_sample.little_endian_words(key), per_sample.little_endian_words(nonce), counter
    )


def test_the_block_of_section_2_3_2(device: str) -> None:
    key = per_sample.little_endian_words(bytes(range(32)), device)
    nonce = per_sample.little_endian_words(bytes.fromhex("000000090000004a00000000"), device)
    block = per_sample.chacha20_words(key, nonce, 1, 1).cpu().numpy().astype("<i4").tobytes()
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4ed2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


@few
@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=12, max_size=12),
    counter=st.one_of(st.integers(0, 2**32 - 300), st.integers(2**31 - 200, 2**31)),
    blocks=st.integers(0, 200),
)
def test_words_are_the_references(
    device: str, key: bytes, nonce: bytes, counter: int, blocks: int
) -> None:
    state = start(key, nonce, counter)
    assert torch.equal(gpu.words(state.to(device), blocks).cpu(), chacha.words(state, blocks))


@few
@given(
    key=st.binary(min_size=32, max_size=32), count=st.integers(0, 3000), std=st.floats(1e-3, 1e3)
)
def test_deviates_are_the_references(device: str, key: bytes, count: int, std: float) -> None:
    state = start(key, bytes(12), 0)
    expected = chacha.normal(chacha.words(state, -(-count // 16)), std)[:count]
    got = gpu.normal(state.to(device), count, std).cpu()
    assert got.shape == (count,)
    assert torch.allclose(got.double(), expected, rtol=1e-5, atol=1e-5 * std)


def test_every_quarter_turn_and_the_longest_radius(device: str) -> None:
    """Few words of a stream fall on a corner of the formula, so it is asked for them one by one."""
    angles = [k * 2**29 + offset for k in range(8) for offset in (-1, 0, 1)]
    pairs = [(first, angle % 2**32) for first in (0, 1, 2**31, 2**32 - 1) for angle in angles]
    words = torch.tensor(pairs, dtype=torch.int64).flatten()
    words = (words - ((words >> 31) << 32)).to(torch.int32)
    along, across = (torch.empty(len(pairs), device=device) for _ in range(2))
    pairs_kernel[(1,)](words.to(device), along, across, len(pairs), BLOCK=128)
    got = torch.stack([along, across], 1).flatten().cpu().double()
    assert torch.allclose(got, chacha.normal(words, 1.0), rtol=1e-5, atol=1e-5)


def test_blocks_of_other_sizes_give_the_same(device: str) -> None:
    state = start(bytes(range(32)), bytes(12), 7).to(device)
    assert torch.equal(gpu.words(state, 50, block=32), gpu.words(state, 50))
    assert len({variant.name for variant in gpu.variants("sm90")}) == 2
