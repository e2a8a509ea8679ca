"""What differentially private training does to per-sample gradients: their norms, with and without
forming them, and clipped sums.

Gradients are rows `[B, P]`, one a sample (or a group of samples that is clipped as a whole).
Half-precision inputs are summed in float32, float64 in float64; results are in that dtype. Nothing
here is differentiable: a backward pass through a norm or a sum raises RuntimeError, and
forward-mode derivatives, which torch does not let an operator refuse, come out as zero. All are
operators of `torch.compile` and give the same bits each time on one device with one number of
threads. `torch.func.vmap` works and loops. `dispatch` says who computes them.

Noise is the caller's, drawn by a generator that the privacy claim can bear. Triton's own is Philox,
which is not cryptographic, so no kernel here draws from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from secure_fl_kernels import gradient_operators as operators
from secure_fl_kernels.reference import gradients as plain

__all__ = [
    "clip_and_sum",
    "clip_factors",
    "ghost_square_norms_conv2d",
    "ghost_square_norms_linear",
    "square_norms",
]

_Pair = int | tuple[int, int]


def square_norms(gradients: Tensor) -> Tensor:
    """‖g_b‖² of every row of `[B, P]`: `[B]`.

    Within 2⁻¹⁷ relative for float32 sums (measured: 2·10⁻⁷ at P = 10⁷), and infinite where float32
    cannot hold it, from a length of 1.8·10¹⁹ on. Elements below 10⁻¹⁹ have no square in float32.

    Raises:
        TypeError: not floating point.
        ValueError: not `[B, P]`.
    """
    result: Tensor = operators.square_norms(_floating("gradients", gradients, 2))
    return result


def clip_factors(square_norms: Tensor, max_norm: float) -> Tensor:
    """The factors f `[B]` by which `clip_and_sum` scales rows.

    A second backward pass, over Σ_b f_b ℓ_b, sums clipped gradients that are never formed. The
    factors are constants: no gradient flows through them, whatever `square_norms` came from.

    f_b = min(1, C/((1 + s)‖g_b‖)) · (1 − ‖g_b‖²/T)₊, with s = 2⁻¹⁸ in float32 and 2⁻⁴⁶ in float64
    for what rounding may have taken off the length. T is 2¹²⁰ (2¹⁰⁰⁰), far below overflow: factors
    fall to zero along a ramp, of which a length below 2⁴⁷ feels nothing, so a relative error η of
    g_b moves f_b g_b by 4ηC at most, also where a length is about to overflow. It is 0 for a
    squared norm that is NaN, infinite or negative: leave such a sample's loss out of the sum
    instead of multiplying it, since 0 · NaN is NaN. In float32 a squared length counts as 10⁻²⁴
    more than it is, for elements too small to have a square: with a `max_norm` below 10⁻⁹ rows come
    out shorter than they might be.

    Raises:
        TypeError: not float32 or float64.
        ValueError: `max_norm` is not positive and finite.
    """
    _positive("max_norm", max_norm)
    if square_norms.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"square_norms must be float32 or float64, not {square_norms.dtype}")
    return plain.clip_factors(square_norms.detach(), max_norm)


def clip_and_sum(
    gradients: Tensor, square_norms: Tensor, max_norm: float, noise: Tensor | None = None
) -> Tensor:
    """Σ_b min(1, C/‖g_b‖) g_b + noise: `[P]`, in one read of the gradients. C is `max_norm`, in the
    gradients' unit.

    Guarantee: what a sample adds is f_b g_b with ‖f_b g_b‖ ≤ C, in exact arithmetic with f_b as
    rounded (`clip_factors`); the products' own rounding can lengthen it by 2⁻²⁴ at most (float64:
    2⁻⁵³), relative. A sample whose squared norm is NaN, infinite or negative adds exactly zero, and
    its row is not read: neither NaN nor infinity reaches the sum. Since a row with an entry that is
    not finite has no finite norm, such a row adds exactly zero; so does one of a length from 2⁶⁰ on
    (float64: 2⁵⁰⁰), and shorter ones are faded out before. No rows give the noise, or zeros.

    Assumes: `square_norms` are those of the rows, or of longer vectors of which the rows are parts
    (one layer of several), to the accuracy of this module's functions. Noise has the standard
    deviation that the claim asks for.

    Not covered: how samples are drawn, what is accounted, which generator the noise comes from, the
    rounding of the sum over samples and noise, and what the last bits of floating-point noise give
    away (Mironov 2012).

    Args:
        gradients: `[B, P]`; rows may lie apart in memory.
        square_norms: `[B]`.
        noise: `[P]`, added to the sum as it is.

    Raises:
        TypeError: something is not floating point.
        ValueError: shapes do not fit, or `max_norm` is not positive and finite.
    """
    _positive("max_norm", max_norm)
    _floating("gradients", gradients, 2)
    if _floating("square_norms", square_norms, 1).shape[0] != gradients.shape[0]:
        raise ValueError("not one squared norm for each row of gradients")
    if noise is not None and _floating("noise", noise, 1).shape[0] != gradients.shape[1]:
        raise ValueError(
            f"rows have {gradients.shape[1]} elements and the noise has {noise.shape[0]}"
        )
    result: Tensor = operators.clip_and_sum(gradients, square_norms, max_norm, noise)
    return result


def ghost_square_norms_linear(
    activations: Tensor, backprops: Tensor, bias: bool = True, group_size: int = 1
) -> Tensor:
    """Squared norms of a linear layer's gradients, weight and bias together, without forming them:
    `[B / group_size]`.

    With a_t the layer's input and b_t the gradient by its output at position t, the gradients are
    Σ_t b_t a_tᵀ and Σ_t b_t, and the sum of their squared norms is Σ_{t,u} (a_t·a_u + 1)(b_t·b_u).
    Where T(I + O) > I·O the first form is cheaper and is used, a block at a time: what is held
    beside the inputs is 2 MiB on the processor, and on a GPU two numbers a program.

    The Gram form errs upwards by (8 + (I + O)/16)·2⁻²⁴ (Σ_t ‖a_t‖‖b_t‖)² (float64: 2⁻⁵³), because
    products that cancel would otherwise leave a norm too small and a gradient clipped too little.
    The other form is as exact as the gradient itself; in matrix units, which cut instead of
    rounding, it is raised by T·2⁻²⁷, relative. Values that float32 cannot square (above 10¹⁹) make
    the norm infinite or NaN, and the sample contributes nothing.

    Args:
        activations: `[B, I]`, or `[B, ..., I]` with positions between.
        backprops: `[B, O]` or `[B, ..., O]`, gradient of the *sum* of losses by the layer's output.
        bias: whether the layer has one.
        group_size: m neighbouring samples that are clipped as a whole; their rows are positions of
            one sequence.

    Raises:
        TypeError: not floating point.
        ValueError: shapes do not fit, or B is not a multiple of `group_size`.
    """
    for name, rows in (("activations", activations), ("backprops", backprops)):
        if _floating(name, rows).ndim < 2:
            shapes = "[B, features] or [B, ..., features]"
            raise ValueError(f"{name} must be {shapes}, and has {rows.ndim} axes")
    if activations.shape[:-1] != backprops.shape[:-1]:
        left, right = activations.shape[1:-1], backprops.shape[1:-1]
        raise ValueError(f"samples or positions differ: [B, {left}, I] and [B, {right}, O]")
    _whole_groups(activations.shape[0], group_size)
    a, b = (plain.grouped(rows, group_size) for rows in (activations, backprops))
    result: Tensor = operators.ghost_linear(a, b, bias)
    return result


def ghost_square_norms_conv2d(
    inputs: Tensor,
    backprops: Tensor,
    kernel_size: _Pair,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    bias: bool = True,
    group_size: int = 1,
) -> Tensor:
    """Squared norms of a 2-d convolution's gradients, weight and bias together: `[B / group_size]`.

    A convolution is a linear layer over patches; its norms are those of
    `ghost_square_norms_linear`, for each group of channels and added up. Patches are unfolded for a
    few samples at a time, 16 MiB of float32.

    Args:
        inputs: `[B, C, H, W]`, padded already where the layer's `padding_mode` is not `zeros`.
        backprops: gradient of the *sum* of the samples' losses by the layer's output,
            `[B, O, H', W']`.
        kernel_size: with `stride`, `padding`, `dilation` as those of `torch.nn.Conv2d`, a number or
            (rows, columns).
        groups: of channels.
        bias: whether the layer has one.
        group_size: m neighbouring samples that are clipped as a whole.

    Raises:
        TypeError: not floating point.
        ValueError: shapes do not fit that convolution, or B is not a multiple of `group_size`.
    """
    _floating("inputs", inputs, 4)
    _floating("backprops", backprops, 4)
    _whole_groups(inputs.shape[0], group_size)
    shape = plain.Convolution(
        _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), groups
    )
    _check_convolution(inputs, backprops, shape)
    result: Tensor = operators.ghost_conv2d(inputs, backprops, *shape, bias, group_size)
    return result


def _check_convolution(inputs: Tensor, backprops: Tensor, shape: plain.Convolution) -> None:
    """Refuse channels that do not divide into groups, and another output than the layer has."""
    channels, groups = (inputs.shape[1], backprops.shape[1]), shape.groups
    if groups < 1 or any(each % groups for each in channels):
        raise ValueError(
            f"{channels[0]} and {channels[1]} channels do not divide into {groups} groups"
        )
    expected = (inputs.shape[0], *_output_size(shape, inputs.shape[2:]))
    if (backprops.shape[0], *backprops.shape[2:]) != expected:
        raise ValueError(
            f"backprops must be [B, O, {expected[1]}, {expected[2]}], B as in the inputs, not "
            f"{tuple(backprops.shape[2:])} behind B and O"
        )


# Checks


def _floating(name: str, x: Tensor, axes: int | None = None) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, not {x.dtype}")
    if axes is not None and x.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, not {x.ndim}")
    return x


def _positive(name: str, value: float) -> None:
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, not {value}")


def _whole_groups(samples: int, group_size: int) -> None:
    if group_size < 1 or samples % group_size:
        raise ValueError(f"the samples do not divide into groups of {group_size}")


def _pair(size: _Pair) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _output_size(shape: plain.Convolution, image: Sequence[int]) -> tuple[int, ...]:
    sizes = zip(image, shape.kernel_size, shape.stride, shape.padding, shape.dilation, strict=True)
    return tuple(
        (side + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        for side, taps, stride, pad, dilation in sizes
    )
