"""Between a row and its unit row: what precedes and follows every loss of unit rows."""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels.reference.losses import SMALLEST_NORM


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """(unit rows `[M, D]`, inverse lengths `[M]`); both zero for rows shorter than
    `SMALLEST_NORM`.
    """
    length = torch.linalg.vector_norm(x, dim=1)
    inverse = torch.where(length < SMALLEST_NORM, torch.zeros_like(length), length.reciprocal())
    # A division, as in the reference: x · (1/‖x‖) can overflow in the factor or round twice.
    z = x / length[:, None]
    return z.index_fill_(0, (inverse == 0).nonzero()[:, 0], 0.0), inverse


def energies(z: Tensor, columns: Tensor | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """(c = zU_S / scale `[M, S]`, ‖c‖² `[M]`), both empty without columns."""
    if columns is None:
        return z.new_empty(0, 0), z.new_empty(0)
    own = (z @ columns).div_(scale)
    return own, own.square().sum(1)


def tangent(v: Tensor, z: Tensor, inverse: Tensor, square: float = 1.0) -> Tensor:
    """The gradient by the raw rows, (v − (ẑ·v)ẑ) / ‖x‖, of a loss with gradient `v` by its unit
    rows; overwrites `v`.

    Args:
        z: unit rows, or rows of squared length `square`.
    """
    along = torch.linalg.vecdot(v, z, dim=1).div_(square)
    return v.addcmul_(along[:, None], z, value=-1).mul_(inverse[:, None])


def add_own(v: Tensor, weights: Tensor | None, own: Tensor, columns: Tensor | None) -> Tensor:
    """`v` plus ω_i(c_iU_Sᵀ): the regulariser's gradient before `tangent`."""
    if weights is None or columns is None:
        return v
    return v.addmm_(own * weights[:, None], columns.T)


def soft_positive(x: Tensor) -> Tensor:
    """log(1 + exp x) to full precision; torch's own softplus is 2e-9 off past 20."""
    return torch.logaddexp(x, x.new_zeros(()))
