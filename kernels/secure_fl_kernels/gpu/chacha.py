"""Triton: ChaCha20's keystream and normal deviates made of it, each block of 16 words by
one lane.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels.gpu.launch import blocks as cover
from secure_fl_kernels.gpu.launch import on
from secure_fl_kernels.gpu.variants import Architecture, Variant

_BLOCK, _WARPS = 128, 4
"""One block of words a lane: 32 live words, so nothing spills."""

_UNIT = tl.constexpr(2.0**-32)
_STEP = tl.constexpr(1.4629180792671596e-09)
"""2π / 2³²."""


@triton.jit
def _quarter(a, b, c, d):
    """RFC 8439, section 2.1."""
    a += b
    d ^= a
    d = (d << 16) | (d >> 16)
    c += d
    b ^= c
    b = (b << 12) | (b >> 20)
    a += b
    d ^= a
    d = (d << 8) | (d >> 24)
    c += d
    b ^= c
    b = (b << 7) | (b >> 25)
    return a, b, c, d


@triton.jit
def _word(START, number: tl.constexpr, BLOCK: tl.constexpr):
    """One word of the state in every lane."""
    return tl.zeros([BLOCK], tl.uint32) + tl.load(START + number).to(tl.uint32, bitcast=True)


@triton.jit
def _keystream(START, block, BLOCK: tl.constexpr):
    """The 16 words of the blocks numbered `block` after the state START. Reference:
    `chacha.words`.
    """
    s0, s1, s2, s3 = (
        _word(START, 0, BLOCK),
        _word(START, 1, BLOCK),
        _word(START, 2, BLOCK),
        _word(START, 3, BLOCK),
    )
    s4, s5, s6, s7 = (
        _word(START, 4, BLOCK),
        _word(START, 5, BLOCK),
        _word(START, 6, BLOCK),
        _word(START, 7, BLOCK),
    )
    s8, s9, s10, s11 = (
        _word(START, 8, BLOCK),
        _word(START, 9, BLOCK),
        _word(START, 10, BLOCK),
        _word(START, 11, BLOCK),
    )
    s12 = _word(START, 12, BLOCK) + block.to(tl.uint32)
    s13, s14, s15 = _word(START, 13, BLOCK), _word(START, 14, BLOCK), _word(START, 15, BLOCK)
    x0, x1, x2, x3, x4, x5, x6, x7 = s0, s1, s2, s3, s4, s5, s6, s7
    x8, x9, x10, x11, x12, x13, x14, x15 = s8, s9, s10, s11, s12, s13, s14, s15
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    return (
        x0 + s0, x1 + s1, x2 + s2, x3 + s3, x4 + s4, x5 + s5, x6 + s6, x7 + s7,
        x8 + s8, x9 + s9, x10 + s10, x11 + s11, x12 + s12, x13 + s13, x14 + s14, x15 + s15,
    )  # fmt: skip


@triton.jit
def _store(
    OUT, block, count, y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14, y15,
    BLOCK: tl.constexpr
):  # fmt: skip
    """Sixteen values a lane, side by side: joined so that a lane's values are neighbours, as vector
    stores want them.
    """
    low = tl.join(
        tl.join(tl.join(y0, y8), tl.join(y4, y12)), tl.join(tl.join(y2, y10), tl.join(y6, y14))
    )
    high = tl.join(
        tl.join(tl.join(y1, y9), tl.join(y5, y13)), tl.join(tl.join(y3, y11), tl.join(y7, y15))
    )
    every = tl.reshape(tl.join(low, high), [BLOCK, 16])
    place = block[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(OUT + place, every, mask=place < count)


@triton.jit
def words_kernel(START, OUT, count, BLOCK: tl.constexpr):
    """`count` words of the keystream after the state START `[16]`, as int32. Reference:
    `chacha.words`.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14, y15 = _keystream(
        START, block, BLOCK
    )
    _store(
        OUT, block, count, y0.to(tl.int32, bitcast=True), y1.to(tl.int32, bitcast=True),
        y2.to(tl.int32, bitcast=True), y3.to(tl.int32, bitcast=True), y4.to(tl.int32, bitcast=True),
        y5.to(tl.int32, bitcast=True), y6.to(tl.int32, bitcast=True), y7.to(tl.int32, bitcast=True),
        y8.to(tl.int32, bitcast=True), y9.to(tl.int32, bitcast=True),
        y10.to(tl.int32, bitcast=True), y11.to(tl.int32, bitcast=True),
        y12.to(tl.int32, bitcast=True), y13.to(tl.int32, bitcast=True),
        y14.to(tl.int32, bitcast=True), y15.to(tl.int32, bitcast=True), BLOCK,
    )  # fmt: skip


@triton.jit
def _normal(first, second, std):
    """Two deviates of two words. The angle is a quarter turn and a rest in ±π/4, for which
    polynomials do: `tl.cos` would spill.

    x − x³/6 + … up to x⁹ is within 2·10⁻⁹ of the sine there, 1 − x²/2 + … up to x¹⁰ within 2·10⁻¹⁰
    of the cosine. Near u = 1, where float32 has lost the word's last bits and a logarithm its own,
    −ln(1 − y) = y + y²/2 + … up to y⁶ with y = 1 − u is exact to 10⁻⁸.
    """
    y = ((first ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * _UNIT
    series = y * (((((y * 0.16666667 + 0.2) * y + 0.25) * y + 0.33333333) * y + 0.5) * y + 1.0)
    halved = tl.where(y < 0.0625, series, 0.0 - tl.log((first.to(tl.float32) + 0.5) * _UNIT))
    radius = tl.sqrt(halved * 2.0) * std
    quarter = (second + 0x20000000) >> 30
    x = (second - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float32) * _STEP
    z = x * x
    sine = x * (
        (((z * 2.7557319e-06 - 1.9841270e-04) * z + 8.3333333e-03) * z - 1.6666667e-01) * z + 1.0
    )
    cosine = (
        (((z * -2.7557319e-07 + 2.4801587e-05) * z - 1.3888889e-03) * z + 4.1666667e-02) * z - 0.5
    ) * z + 1.0
    odd = (quarter & 1) == 1
    along, across = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    along = tl.where((quarter == 1) | (quarter == 2), 0.0 - along, along)
    across = tl.where(quarter >= 2, 0.0 - across, across)
    return radius * along, radius * across


@triton.jit
def normal_kernel(START, OUT, count, std, BLOCK: tl.constexpr):
    """`count` normal deviates with standard deviation `std`, float32, from the keystream after
    START. Reference: `chacha.normal`.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14, y15 = _keystream(
        START, block, BLOCK
    )
    n0, n1 = _normal(y0, y1, std)
    n2, n3 = _normal(y2, y3, std)
    n4, n5 = _normal(y4, y5, std)
    n6, n7 = _normal(y6, y7, std)
    n8, n9 = _normal(y8, y9, std)
    n10, n11 = _normal(y10, y11, std)
    n12, n13 = _normal(y12, y13, std)
    n14, n15 = _normal(y14, y15, std)
    _store(
        OUT,
        block,
        count,
        n0,
        n1,
        n2,
        n3,
        n4,
        n5,
        n6,
        n7,
        n8,
        n9,
        n10,
        n11,
        n12,
        n13,
        n14,
        n15,
        BLOCK,
    )


def words(start: Tensor, blocks: int, block: int = _BLOCK) -> Tensor:
    """`blocks` blocks of 16 words after the state `start` (int32 `[16]`): int32 `[16 · blocks]`."""
    out = start.new_empty(16 * blocks)
    if blocks:
        with on(start):
            words_kernel[(cover(blocks, block),)](
                start, out, 16 * blocks, BLOCK=block, num_warps=_WARPS
            )
    return out


def normal(start: Tensor, count: int, std: float, block: int = _BLOCK) -> Tensor:
    """`count` normal deviates after the state `start`, float32."""
    out = start.new_empty(count, dtype=torch.float32)
    if count:
        with on(start):
            normal_kernel[(cover(count, 16 * block),)](
                start, out, count, std, BLOCK=block, num_warps=_WARPS
            )
    return out


def variants(_arch: Architecture) -> Iterator[Variant]:
    """Both kernels in the one configuration that the launchers use, which is the same for
    every architecture.
    """
    yield Variant(
        "chacha_words/i32",
        words_kernel,
        {"START": "*i32", "OUT": "*i32", "count": "i32"},
        {"BLOCK": _BLOCK},
        _WARPS,
        3,
    )
    types = {"START": "*i32", "OUT": "*fp32", "count": "i32", "std": "fp32"}
    yield Variant("chacha_normal/fp32", normal_kernel, types, {"BLOCK": _BLOCK}, _WARPS, 3)
