"""Triton: kernels of per-sample gradients: squared norms, clipped sums, Gram and outer products.

Every program owns what it stores: nothing is added atomically, so results repeat bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from secure_fl_kernels.reference.gradients import (
    CEILING,
    FLOOR,
    SLACK,
)

_FLOOR = tl.constexpr(FLOOR[torch.float32])
_LONGER = tl.constexpr(1 + SLACK[torch.float32])
_CEILING = tl.constexpr(CEILING[torch.float32])
_PER_CEILING = tl.constexpr(1 / CEILING[torch.float32])


@triton.jit
def square_kernel(G, OUT, width, stride, parts, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Σ g² over `BLOCK * STEPS` elements of one row of G `[B, P]`; OUT `[B, parts]`.
    Reference: `square_norms`.
    """
    sample, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    first = part.to(tl.int64) * (BLOCK * STEPS) + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(STEPS):
        column = first + step * BLOCK
        g = tl.load(G + sample.to(tl.int64) * stride + column, mask=column < width, other=0.0).to(
            tl.float32
        )
        total += g * g
    tl.store(OUT + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def clip_kernel(
    G, SQUARE, NOISE, OUT, samples, width, stride, max_norm, HAS_NOISE: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr
):  # fmt: skip
    """Σ_b f_b g_b + noise over one block of columns, f as in `clip_factors`; rows that do not count
    are not read. Reference: `clip_and_sum`.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = column < width
    total = tl.zeros([BLOCK_B, BLOCK_P], tl.float32)
    for start in range(0, samples, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        square = tl.load(SQUARE + row, mask=row < samples, other=-1.0)
        counts = (square >= 0.0) & (square < _CEILING)
        square = tl.where(counts, square, 1.0)
        length = tl.sqrt(square + _FLOOR) * _LONGER
        factor = tl.where(
            counts, tl.minimum((1.0 / length) * max_norm, 1.0) * (1.0 - square * _PER_CEILING), 0.0
        )
        mask = (factor > 0.0)[:, None] & inside[None, :]
        g = tl.load(
            G + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0.0
        ).to(tl.float32)
        total += g * factor[:, None]
    result = tl.sum(total, 0)
    if HAS_NOISE:
        result += tl.load(NOISE + column, mask=inside, other=0.0)
    tl.store(OUT + column, result, mask=inside)


@triton.jit
def _product(
    X, first, second, length, width, stride_t, stride_d, BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """The Gram tile of positions `first` and `second` of X `[T, D]`."""
    gram = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    rows, columns = first[:, None] * stride_t, second[None, :] * stride_t
    for start in range(0, width, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        inside, step = place < width, place * stride_d
        x = tl.load(
            X + (rows + step[None, :]), mask=(first < length)[:, None] & inside[None, :], other=0.0
        )
        y = tl.load(
            X + (columns + step[:, None]),
            mask=inside[:, None] & (second < length)[None, :],
            other=0.0,
        )
        gram = tl.dot(x, y, gram, input_precision=PRECISION)
    return gram


@triton.jit
def gram_kernel(
    A, B, SQUARE, LENGTH, positions, inputs, outputs, tiles, stride_ab, stride_at, stride_ai,
    stride_bb, stride_bt, stride_bo, bias, lost_a, lost_b, BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of rows of Σ_{t,u} (a_t·a_u + bias)(b_t·b_u) up to the diagonal, off-diagonal tiles
    twice, of A `[B, T, I]`, B `[B, T, O]`.

    LENGTH gets the block's Σ_t √((‖a_t‖² + bias + lost_a)(‖b_t‖² + lost_b)), for the margin.
    Reference: `ghost_square_norms_linear`.
    """
    sample, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    row = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    total = tl.zeros([BLOCK_T], tl.float32)
    square_a, square_b = tl.zeros([BLOCK_T], tl.float32), tl.zeros([BLOCK_T], tl.float32)
    for start in range(0, (tile + 1) * BLOCK_T, BLOCK_T):
        other = start + tl.arange(0, BLOCK_T)
        a = _product(
            A + sample * stride_ab, row, other, positions, inputs, stride_at, stride_ai, BLOCK_T,
            BLOCK_D, PRECISION,
        ) + bias  # fmt: skip
        b = _product(
            B + sample * stride_bb, row, other, positions, outputs, stride_bt, stride_bo, BLOCK_T,
            BLOCK_D, PRECISION,
        )  # fmt: skip
        total += tl.sum(a * b, 1) * tl.where(start == tile * BLOCK_T, 1.0, 2.0)
        same = row[:, None] == other[None, :]
        square_a += tl.sum(tl.where(same, a, 0.0), 1)
        square_b += tl.sum(tl.where(same, b, 0.0), 1)
    tl.store(SQUARE + tl.program_id(0), tl.sum(total, 0))
    length = tl.where(row < positions, tl.sqrt((square_a + lost_a) * (square_b + lost_b)), 0.0)
    tl.store(LENGTH + tl.program_id(0), tl.sum(length, 0))


@triton.jit
def _row_sums(B, rows, inside, positions, stride_bt, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr):
    """Σ_t b_t of a block of outputs, at `rows` `[BLOCK_O, 1]` of B where `inside`."""
    total = tl.zeros([BLOCK_O, BLOCK_T], tl.float32)
    for start in range(0, positions, BLOCK_T):
        place = start + tl.arange(0, BLOCK_T)
        mask = inside[:, None] & (place < positions)[None, :]
        b = tl.load(B + (rows + place[None, :] * stride_bt), mask=mask, other=0.0)
        total += b.to(tl.float32)
    return tl.sum(total, 1)


@triton.jit
def outer_kernel(
    A, B, SQUARE, positions, inputs, outputs, tiles, across, stride_ab, stride_at, stride_ai,
    stride_bb, stride_bt, stride_bo, BIAS: tl.constexpr, BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """‖·‖² of one block of Σ_t b_t a_tᵀ, which is never stored; the first block of each row adds
    ‖Σ_t b_t‖². Reference: as `gram_kernel`.
    """
    sample, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    output = (tile // across) * BLOCK_O + tl.arange(0, BLOCK_O)
    feature = (tile % across) * BLOCK_I + tl.arange(0, BLOCK_I)
    gradient = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    A += sample * stride_ab
    B += sample * stride_bb
    rows, columns = output[:, None] * stride_bo, feature[None, :] * stride_ai
    for start in range(0, positions, BLOCK_T):
        place = start + tl.arange(0, BLOCK_T)
        inside = place < positions
        b = tl.load(
            B + (rows + place[None, :] * stride_bt),
            mask=(output < outputs)[:, None] & inside[None, :],
            other=0.0,
        )
        a = tl.load(
            A + (columns + place[:, None] * stride_at),
            mask=inside[:, None] & (feature < inputs)[None, :],
            other=0.0,
        )
        gradient = tl.dot(b, a, gradient, input_precision=PRECISION)
    square = tl.sum(gradient * gradient, 1)
    if BIAS:  # noqa: SIM102  # a constant of the kernel and a value in it cannot be joined by `and`
        if tile % across == 0:
            row = _row_sums(B, rows, output < outputs, positions, stride_bt, BLOCK_O, BLOCK_T)
            square += row * row
    tl.store(SQUARE + tl.program_id(0), tl.sum(square, 0))
