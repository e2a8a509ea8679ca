"""What differentially private training does to per-sample gradients, in plain torch, and the
constants that its fast forms share.

Suffixes name axes: B samples (or groups of them), P parameters, T positions of a sequence, I
inputs, O outputs. Results are in `accumulator(dtype)`. None of these functions checks its
arguments: `per_sample` does.

Sources: Abadi et al. 2016, arXiv 1607.00133 (clipping); Goodfellow 2015, arXiv 1510.01799 (norms
without gradients); Li et al. 2022, arXiv 2110.05679 (the same for sequences).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SLACK = {torch.float32: 2.0**-18, torch.float64: 2.0**-46}
"""Relative error allowed to a computed length. Float32 sums here pass an element through at most
100 additions, each wrong by 2⁻²⁴ at most, so a squared length by 2⁻¹⁷ and a length by half of that;
the rest of it pays for square root and division.
"""

FLOOR = {torch.float32: 2.0**-80, torch.float64: 2.0**-970}
"""Added to squared lengths: elements too small to have a square lose at most 2⁻¹²⁶ each (2⁻¹⁰²²),
and no row has 2⁴⁶ of them.
"""

CEILING = {torch.float32: 2.0**120, torch.float64: 2.0**1000}
"""Squared lengths from here on count as not finite. Factors fall to zero on the way, in proportion,
so that no rounding of a length, and none that makes a sum overflow, moves a clipped gradient by
more than its own share; below a length of 2⁴⁷ the way changes no bit.
"""

PATCHES = 1 << 22
"""Elements of unfolded images held at once: 16 MiB of float32."""


class Convolution(NamedTuple):
    """Geometry of a 2-d convolution, (rows, columns) each."""

    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


class Margin(NamedTuple):
    """How far rounding can pull a sum of Gram products below the squared norm; see `ghost_margin`.

    Attributes:
        relative: of the square of Σ_t ‖a_t‖‖b_t‖.
        activations: added to ‖a_t‖² for squares lost to underflow.
        backprops: added to ‖b_t‖².
    """

    relative: float
    activations: float
    backprops: float


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that elements of `dtype` are summed in: float64 for float64, float32 for
    all others.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def square_norms(gradients_BP: Tensor) -> Tensor:
    """Σ_p g_bp², `[B]`."""
    return gradients_BP.to(accumulator(gradients_BP.dtype)).square().sum(1)


def ghost_square_norms_linear(activations_BTI: Tensor, backprops_BTO: Tensor, bias: bool) -> Tensor:
    """‖Σ_t b_t a_tᵀ‖² + bias · ‖Σ_t b_t‖², `[B]`, by forming the gradient."""
    wide = accumulator(torch.promote_types(activations_BTI.dtype, backprops_BTO.dtype))
    a_BTI, b_BTO = activations_BTI.to(wide), backprops_BTO.to(wide)
    total_B = square_norms((b_BTO.mT @ a_BTI).flatten(1))
    return total_B + square_norms(b_BTO.sum(1)) if bias else total_B


def ghost_square_norms_conv2d(
    inputs: Tensor, backprops: Tensor, shape: Convolution, bias: bool, group_size: int
) -> Tensor:
    """Squared norms of a convolution's gradients over groups of `group_size` samples,
    `[B / group_size]`.
    """
    parts = [
        ghost_square_norms_linear(a, b, bias).view(-1, shape.groups).sum(1)
        for a, b in sequences(inputs, backprops, shape, group_size)
    ]
    return torch.cat(parts) if parts else inputs.new_empty(0, dtype=accumulator(inputs.dtype))


def clip_factors(square_norms_B: Tensor, max_norm: float) -> Tensor:
    """min(1, C/‖g_b‖)·(1 − ‖g_b‖²/`CEILING`)₊ made smaller by `SLACK`; 0 for a squared norm that is
    negative or NaN. In `square_norms_B`'s dtype.
    """
    dtype = square_norms_B.dtype
    counts = (square_norms_B >= 0) & (square_norms_B < CEILING[dtype])
    length = (square_norms_B + FLOOR[dtype]).sqrt() * (1 + SLACK[dtype])
    factors = (max_norm / length).clamp(max=1) * (1 - square_norms_B / CEILING[dtype])
    return torch.where(counts, factors, torch.zeros_like(factors))


def clip_and_sum(
    gradients_BP: Tensor, square_norms_B: Tensor, max_norm: float, noise_P: Tensor | None
) -> Tensor:
    """Σ_b f_b g_b + noise, `[P]`, with the factors f of `clip_factors`; rows with f_b = 0 add
    exactly zero, whatever they hold.
    """
    wide = accumulator(gradients_BP.dtype)
    factors = clip_factors(square_norms_B.to(wide), max_norm)[:, None]
    clipped = torch.where(factors > 0, gradients_BP.to(wide), torch.zeros_like(factors)) * factors
    return clipped.sum(0) if noise_P is None else clipped.sum(0) + noise_P.to(wide)


def ghost_margin(inputs: int, outputs: int, dtype: torch.dtype) -> Margin:
    """What a norm from Gram matrices is raised by, so that it errs upwards.

    Σ_{t,u} (a_t·a_u)(b_t·b_u) may cancel: each product is off by u·‖a_t‖‖a_u‖‖b_t‖‖b_u‖, so a norm
    far below Σ_t ‖a_t‖‖b_t‖ is off by √u of that, where one from the formed gradient is off by u.
    (8 + (I + O)/16) u with u half of `eps` covers dot products summed in steps of 16, each of which
    cuts to 24 bits, as matrix units do.
    """
    unit = torch.finfo(dtype).eps / 2
    lost = torch.finfo(dtype).tiny / unit
    return Margin((8 + (inputs + outputs) / 16) * unit, inputs * lost, outputs * lost)


def gram_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether Gram matrices, T²(I + O) multiplications, cost less than the gradient itself, T·I·O.

    Measured on one core over I, O from 10 to 1,024 and T from 1 to 512, the two forms cross within
    a factor of two of T = IO/(I + O).
    """
    return positions * (inputs + outputs) < inputs * outputs


def grouped(rows: Tensor, group_size: int) -> Tensor:
    """`[G·m, ..., D]` as `[G, m·..., D]`: a group's samples one after the other, as positions of
    one sequence.
    """
    return rows.reshape(
        rows.shape[0] // group_size, group_size * prod(rows.shape[1:-1]), rows.shape[-1]
    )


def sequences(
    inputs: Tensor, backprops: Tensor, shape: Convolution, group_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A convolution as linear layers over patches, a few groups of samples at a time.

    Yields:
        Patches `[G·groups, m·H'W', I]` and their gradients `[G·groups, m·H'W', O]`, I and O of one
        group of channels, m samples in a group: row g·groups + c has the channels c of the group of
        samples g.
    """
    wide = accumulator(torch.promote_types(inputs.dtype, backprops.dtype))
    taps = inputs.shape[1] * shape.kernel_size[0] * shape.kernel_size[1]
    pixels = backprops.shape[2] * backprops.shape[3]
    step = group_size * max(1, PATCHES // max(1, group_size * taps * pixels))
    for start in range(0, inputs.shape[0], step):
        images = inputs[start : start + step].to(wide)
        patches = functional.unfold(
            images,
            tuple(shape.kernel_size),
            tuple(shape.dilation),
            tuple(shape.padding),
            tuple(shape.stride),
        )
        outputs = backprops[start : start + step].to(wide).flatten(2)
        yield (
            _by_channels(patches, shape.groups, group_size),
            _by_channels(outputs, shape.groups, group_size),
        )


def _by_channels(rows: Tensor, groups: int, group_size: int) -> Tensor:
    """`[G·m, groups·D, L]` as `[G·groups, m·L, D]`, a view where m is 1."""
    split = rows.reshape(
        rows.shape[0] // group_size, group_size, groups, rows.shape[1] // groups, rows.shape[2]
    )
    if group_size == 1:
        return split.squeeze(1).flatten(0, 1).mT
    return split.permute(0, 2, 1, 4, 3).flatten(0, 1).flatten(1, 2)
