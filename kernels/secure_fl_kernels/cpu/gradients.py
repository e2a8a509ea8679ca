"""Per-sample gradient norms and clipped sums on the processor, at the cost of reading each
gradient once.

Two things make these faster than the obvious torch: no temporary of the gradients' size is ever
written, and sums run over stretches of 1,024 elements. The latter is also what makes them right:
one float32 sum over a row of 10⁷ elements (`torch.linalg.vector_norm`) came out 7·10⁻⁴ too small,
so a clipped gradient would have been that much too long.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from secure_fl_kernels.reference.gradients import (
    Convolution,
    accumulator,
    clip_factors,
    ghost_margin,
    gram_is_cheaper,
    sequences,
)

_STRETCH = 1024
"""Elements summed in one go: 64 additions on each of 16 lanes, so an error of 64 · 2⁻²⁴ at the very
most, measured 2·10⁻⁷.
"""

_HELD = 1 << 19
"""Elements of a temporary: 2 MiB of float32, which a core's cache mostly holds."""

_EDGE = 256
"""Rows of a Gram matrix computed at once."""


def square_norms(gradients_BP: Tensor) -> Tensor:
    """Σ_p g_bp², `[B]`; stretches are added in float64."""
    wide = accumulator(gradients_BP.dtype)
    if gradients_BP.dtype == wide:
        return _squares(gradients_BP).to(wide)
    total = gradients_BP.new_zeros(len(gradients_BP), dtype=torch.float64)
    height = max(1, _HELD // max(1, gradients_BP.shape[1]))
    for top in range(0, len(gradients_BP), height):
        for left in range(0, gradients_BP.shape[1], _HELD):
            total[top : top + height] += _squares(
                gradients_BP[top : top + height, left : left + _HELD].to(wide)
            )
    return total.to(wide)


def _squares(rows_BP: Tensor) -> Tensor:
    """Squared lengths in float64."""
    whole = rows_BP.shape[1] // _STRETCH
    total: Tensor = (
        torch.linalg.vector_norm(rows_BP[:, whole * _STRETCH :], dim=1).double().square()
    )
    if whole:
        total += (
            torch.linalg.vector_norm(rows_BP.unfold(1, _STRETCH, _STRETCH), dim=2)
            .double()
            .square()
            .sum(1)
        )
    return total


def ghost_square_norms_linear(activations_BTI: Tensor, backprops_BTO: Tensor, bias: bool) -> Tensor:
    """As the reference, by Gram matrices or by blocks of the gradient, whichever is cheaper; a few
    samples at a time.
    """
    samples, positions, inputs = activations_BTI.shape
    outputs = backprops_BTO.shape[2]
    wide = accumulator(torch.promote_types(activations_BTI.dtype, backprops_BTO.dtype))
    gram = gram_is_cheaper(positions, inputs, outputs)
    largest = max(
        positions * max(inputs, outputs),
        positions * min(positions, _EDGE) if gram else inputs * outputs,
    )
    step = max(1, _HELD // max(1, largest))
    compute = _by_gram if gram else _by_gradient
    result = activations_BTI.new_empty(samples, dtype=wide)
    for start in range(0, samples, step):
        few = slice(start, start + step)
        result[few] = compute(activations_BTI[few].to(wide), backprops_BTO[few].to(wide), bias)
    return result


def _by_gram(a_BTI: Tensor, b_BTO: Tensor, bias: bool) -> Tensor:
    """Σ_{t,u} (a_t·a_u + bias)(b_t·b_u) over the lower triangle, raised by `ghost_margin`."""
    squares_a, squares_b = (
        torch.linalg.vector_norm(x, dim=2).double().square() for x in (a_BTI, b_BTO)
    )
    squares_a += float(bias)
    if a_BTI.shape[1] == 1:
        total = (squares_a * squares_b).sum(1)
    else:
        total = a_BTI.new_zeros(a_BTI.shape[0], dtype=torch.float64)
        for top in range(0, a_BTI.shape[1], _EDGE):
            product = _tile(a_BTI, top).add_(float(bias)).mul_(_tile(b_BTO, top))
            if top:
                total += 2 * product[:, :, :top].sum((1, 2))
            total += product[:, :, top:].sum((1, 2))
    margin = ghost_margin(a_BTI.shape[2], b_BTO.shape[2], a_BTI.dtype)
    lengths = ((squares_a + margin.activations) * (squares_b + margin.backprops)).sqrt().sum(1)
    raised: Tensor = total + margin.relative * lengths.square()
    return raised.clamp(min=0)


def _tile(rows_BTD: Tensor, top: int) -> Tensor:
    """Rows from `top` of the Gram matrix, up to its diagonal block."""
    bottom = top + _EDGE
    return torch.bmm(rows_BTD[:, top:bottom], rows_BTD[:, :bottom].mT)


def _by_gradient(a_BTI: Tensor, b_BTO: Tensor, bias: bool) -> Tensor:
    """‖Σ_t b_t a_tᵀ‖² a few outputs at a time."""
    height = max(1, _HELD // max(1, a_BTI.shape[0] * a_BTI.shape[2]))
    total = a_BTI.new_zeros(a_BTI.shape[0], dtype=torch.float64)
    for some in b_BTO.split(height, dim=2):
        total += _squares(torch.bmm(some.mT, a_BTI).flatten(1))
    return total + _squares(b_BTO.sum(1)) if bias else total


def ghost_square_norms_conv2d(
    inputs: Tensor, backprops: Tensor, shape: Convolution, bias: bool, group_size: int
) -> Tensor:
    """As the reference, patches of a few samples at a time."""
    parts = [
        ghost_square_norms_linear(a, b, bias).view(-1, shape.groups).sum(1)
        for a, b in sequences(inputs, backprops, shape, group_size)
    ]
    return torch.cat(parts) if parts else inputs.new_empty(0, dtype=accumulator(inputs.dtype))


def clip_and_sum(
    gradients_BP: Tensor, square_norms_B: Tensor, max_norm: float, noise_P: Tensor | None
) -> Tensor:
    """As the reference, in one read: a matrix-vector product over every run of rows that count."""
    wide = accumulator(gradients_BP.dtype)
    factors = clip_factors(square_norms_B.to(wide), max_norm)
    width = gradients_BP.shape[1]
    total = (
        gradients_BP.new_zeros(width, dtype=wide)
        if noise_P is None
        else noise_P.to(wide, copy=True).contiguous()
    )
    runs = list(_runs(factors > 0))
    columns = width if gradients_BP.dtype == wide else max(1, _HELD // max(1, len(factors)))
    for start in range(0, width, max(1, columns)):
        stretch = slice(start, start + columns)
        for rows in runs:
            total[stretch].addmv_(gradients_BP[rows, stretch].to(wide).T, factors[rows])
    return total


def _runs(counts: Tensor) -> Iterator[slice]:
    """Neighbouring rows that count, as slices: a row that does not is never read, so its NaN cannot
    leak through 0 · NaN.
    """
    start = None
    for row, count in enumerate([*counts.tolist(), False]):
        if count and start is None:
            start = row
        elif not count and start is not None:
            yield slice(start, row)
            start = None
