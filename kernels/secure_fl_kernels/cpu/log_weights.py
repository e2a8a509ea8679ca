"""NT-Xent's weights inside the exponent: exp(s_ik)(w_i + w_k) is a product of few columns added to
that of the rows, and one exponential.

With m the middle of the range of log w, 2h its width and a = log w − m,
    w_i + w_k = 2eᵐ exp f(a_i, a_k),   f(a, b) = log((eᵃ + eᵇ)/2) ≈ Σ_p ±u_p(a) u_p(b) over r terms.
Adding that product of 8 terms takes 21 ms at 8,192 rows, where making tiles of w_i + w_k and
multiplying by them took 47.

The u_p are the eigenvectors of f between 2r Chebyshev nodes on [−h, h], largest eigenvalues first,
continued by Chebyshev's polynomials. That takes half as many terms as the polynomials themselves.
What is left out is at most 9·10⁻⁹ for 8 terms at h = 1.5 and 1.8·10⁻⁸ for 16 at h = 4, less than
half a unit of float32 (6·10⁻⁸). Rounding the terms to float32 makes that 4·10⁻⁷ and 1.4·10⁻⁶ at the
very most; on clustered rows with h from 1 to 2.5 the gradient's error, 4 to 9·10⁻⁷ without, grew to
at most 1.6 times that.

The first expansion in a process also brings in LAPACK, 5 MiB once.
"""

from __future__ import annotations

from functools import cache
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

_REACHES = (1.5, 8), (4.0, 16)
"""Largest h and its number of terms; a multiple of 8 keeps the product's columns in
whole vectors.
"""

_LARGEST_EXPONENT = 60.0
"""What s + log(rows) + h may come to: float32 ends at 88, and the sums are multiplied by 2eᵐ only
at the end.
"""

_FEWEST_ROWS = 2048
"""Where the terms, 0.3 ms of 29, save more than they take; at 1,024 rows both ways are as fast."""


class Terms(NamedTuple):
    """±u and u `[M, r]`, whose product is added to the similarities, and `factor` = 2eᵐ, which the
    exponential then lacks.
    """

    left: Tensor
    right: Tensor
    factor: Tensor


def expanded(log_weights: Tensor, steepest: float) -> Terms | None:
    """The terms of log w `[M]`; None where the weights are better added tile by tile.

    That is where log w spreads wider than 16 terms can follow or is not finite; in float64, which
    they would spoil; at reduced precision, where bfloat16 would leave a weight two digits; and at
    so few rows that the terms take longer than they save.

    Args:
        steepest: the largest |s|.
    """
    if (
        log_weights.dtype != torch.float32
        or len(log_weights) < _FEWEST_ROWS
        or torch.get_float32_matmul_precision() != "highest"
    ):
        return None
    low, high = (bound.item() for bound in log_weights.aminmax())
    half, middle = (high - low) / 2, (high + low) / 2
    for reach, count in _REACHES:
        if half <= reach and steepest + log(len(log_weights)) + reach <= _LARGEST_EXPONENT:
            values, signs = terms(log_weights.double() - middle, reach, count)
            return Terms(
                (values * signs).float(),
                values.float(),
                log_weights.new_tensor(middle + log(2)).exp(),
            )
    return None


def terms(a: Tensor, reach: float, count: int) -> tuple[Tensor, Tensor]:
    """(u `[M, r]`, signs `[r]`) with f(a_i, a_k) ≈ Σ_p sign_p u_ip u_kp for |a| ≤ `reach`,
    in float64.
    """
    coefficients, signs = _expansion(reach, count)
    angles = torch.acos((a / reach).clamp(-1, 1))
    return (angles[:, None] * torch.arange(len(coefficients))).cos_() @ coefficients, signs


@cache
def _expansion(reach: float, count: int) -> tuple[Tensor, Tensor]:
    """(Chebyshev coefficients of each u_p `[2r, r]`, their signs `[r]`)."""
    orders = torch.arange(2 * count, dtype=torch.float64, device="cpu")
    angles = torch.pi * (orders + 0.5) / len(orders)
    nodes = reach * angles.cos()
    eigenvalues, vectors = torch.linalg.eigh(torch.logaddexp(nodes[:, None], nodes) - log(2))
    kept = eigenvalues.abs().argsort(descending=True)[:count]
    at_nodes = vectors[:, kept] * eigenvalues[kept].abs().sqrt()
    coefficients = torch.cos(orders[:, None] * angles) @ at_nodes * (2 / len(orders))
    coefficients[0] /= 2
    return coefficients, eigenvalues[kept].sign()
