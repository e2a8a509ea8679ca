"""Heads from opened moments of views: what changes from view to view of one example is shrunk, and
what tells examples apart is kept.

The input is the mean over examples of W_i, the covariance of example i's views around their own
mean, clipped to Frobenius norm 1 (in units of the clip), plus the symmetric noise of a private sum.
Everything here is post-processing of that release and of public numbers: how much
is cut follows from the noise alone, and no constant is chosen by looking at a run's data.

**Noise.** A symmetric matrix `[F, F]` with deviation s on the diagonal and s/√2 beside it, which is
what equal noise on the upper triangle times √2 gives, has its eigenvalues within ±s√(2F), Wigner's
semicircle, but for fluctuations of F^(−2/3) of that. Of a moment plus such noise the best estimate
that keeps the eigenvectors, in Frobenius norm, replaces an eigenvalue e above this edge by
√(e² − edge²) and every other one by zero (Gavish & Donoho 2017, "Optimal shrinkage of singular
values", for the symmetric case).

**Same bits.** Eigenvectors are `symmetric_eigen`'s and sums run in a written order, so that parties
who replicate a state get the same head on every machine.

Suffixes: F features.
"""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import torch
from torch import Tensor

from secure_fl.errors import ModelError
from secure_fl.models.eigen import Floats, symmetric_eigen

_OF_EDGE, _OF_SAMPLING = 0.3, 0.3
"""λ in units of the noise's edge, and of the edge that sampling alone would have."""
_PRIOR_EDGE, _PRIOR_RIDGE = 0.03, 2e-3
"""The noise's edge from which on the prior counts in full, and the most that λ is beside a prior,
both in clips.
"""
_BETWEEN, _UNSEEN = 0.5, 0.03
"""k of `fisher`, and the part of the noise's edge that B has in directions that noise hides. All
these were chosen on Fashion-MNIST and are used unchanged everywhere.
"""
_OUTLIER = 1.64
"""Half the 99.9 % point of the Tracy-Widom law of real symmetric noise: how far above the
semicircle's end its largest eigenvalue gets, in units of F^(−2/3).
"""


def whitening(
    moment_FF: Tensor,
    noise_deviation: float,
    examples: int,
    prior_FF: Tensor | None = None,
) -> Tensor:
    """(W + λI)^(−1/2), float64 `[F, F]`, symmetric and positive definite, from a noised W.

    W is shrunk as said above; where nothing of it survives the noise, the map is the prior's, and
    without a prior the identity.

    Args:
        moment_FF: the opened sum over examples divided by their number, symmetric.
        noise_deviation: of the noise on a diagonal entry of `moment_FF`; 0 without noise.
        examples: how many there are, released or public. An average of N matrices of norm 1 is
            uncertain itself: λ is never below what that explains.
        prior_FF: the same moment of public examples, positive semidefinite. Its weight grows with
            the noise's square, to one.

    Returns:
        A map scaled so that a unit vector without direction comes out with coordinates of mean
        square 1.

    Raises:
        ModelError: shapes that do not fit, a value that is not finite, or noise below zero.
    """
    kept, least = _within(moment_FF, noise_deviation, examples, prior_FF)
    return torch.from_numpy(_scaled(inverse_root(kept, least)))


def fisher(
    within_FF: Tensor,
    between_FF: Tensor,
    within_deviation: float,
    between_deviation: float,
    examples: int,
    prior_FF: Tensor | None = None,
) -> Tensor:
    """S √(M / (1 + M)), float64 `[F, F]`: whitening S, then every direction weighed by how far it
    tells examples apart, M = k S B S.

    B is the mean over examples of m mᵀ, m the mean of an example's views: where it is large beside
    W, a difference between two examples is one of what they show. Fisher's discriminant with
    examples for classes, as a Wiener gain in place of a choice of directions; M's own square root
    would let noise in, the gain is 1 at most. B is shrunk as W is, and a direction of which nothing
    survives counts for a small part of the noise's edge: with the noise this goes over into a
    second whitening, and where the noise hides all into the prior's.

    Args:
        within_FF, between_FF: means over examples, each with its own `noise_deviation`.
        examples, prior_FF: as for `whitening`.

    Returns:
        As `whitening`, but for the symmetry. The last step turns back to the features' own axes,
        so that no coordinate is a direction of noise alone.

    Raises:
        ModelError: as `whitening`.
    """
    kept, least = _within(within_FF, within_deviation, examples, prior_FF)
    root, size = inverse_root(kept, least), len(kept)
    edge = noise_edge(between_deviation, size)
    between = shrunk(_symmetric(between_FF, "between_FF", size), edge)
    between += _UNSEEN * max(edge, sampling_edge(size, examples)) * np.eye(size)
    values, vectors = symmetric_eigen(_BETWEEN * _product(root, _product(between, root)))
    values = np.maximum(values, 0.0)
    gains = _composed(np.sqrt(values / (1 + values)), vectors)
    return torch.from_numpy(_scaled(_product(root, gains)))


def _within(
    moment_FF: Tensor, noise_deviation: float, examples: int, prior_FF: Tensor | None
) -> tuple[Floats, float]:
    """The estimate of W, prior included, and λ."""
    size = len(moment_FF)
    edge = noise_edge(noise_deviation, size)
    kept = shrunk(_symmetric(moment_FF, "moment_FF", size), edge)
    least = ridge(edge, size, examples)
    if prior_FF is not None:
        kept += min(1.0, (edge / _PRIOR_EDGE) ** 2) * _symmetric(prior_FF, "prior_FF", size)
        least = min(least, _PRIOR_RIDGE)
    return kept, least


def noise_edge(noise_deviation: float, features: int) -> float:
    """What the largest eigenvalue of noise alone stays below in 999 of 1,000 releases: s√(2F), and
    the fluctuation above it.
    """
    if not 0 <= noise_deviation < inf:
        problem, remedy = "not a deviation", "zero, or a positive number"
        raise ModelError(problem, "noise_deviation", noise_deviation, remedy)
    # Whole, since a power's last bit differs between machines.
    thickness: int = round(float(features) ** (2 / 3))
    return noise_deviation * sqrt(2 * features) * (1 + _OUTLIER / thickness)


def sampling_edge(features: int, examples: int) -> float:
    """√(2 / (F N)): how far from their mean N independent matrices of norm 1 leave eigenvalues."""
    if examples < 1:
        raise ModelError("no examples", "examples", examples, "pass how many were summed")
    return sqrt(2 / (features * examples))


def ridge(edge: float, features: int, examples: int) -> float:
    """λ, from noise and sizes alone."""
    return max(_OF_EDGE * edge, _OF_SAMPLING * sampling_edge(features, examples))


def shrunk(moment_FF: Floats, edge: float) -> Floats:
    """The positive semidefinite matrix behind a noised one: eigenvalues e become √(e² − edge²)
    above the edge and zero below it.
    """
    values, vectors = symmetric_eigen(moment_FF)
    kept = np.where(values > edge, np.sqrt(np.maximum(values * values - edge * edge, 0.0)), 0.0)
    return _composed(kept, vectors)


def inverse_root(matrix_FF: Floats, ridge: float) -> Floats:
    """(M + ridge·I)^(−1/2) of a positive semidefinite M."""
    values, vectors = symmetric_eigen(matrix_FF)
    return _composed(1 / np.sqrt(np.maximum(values, 0.0) + ridge), vectors)


def _scaled(head_FF: Floats) -> Floats:
    """Times what makes the squares of its entries sum to F²."""
    total = float(np.cumsum(np.add.reduce(head_FF * head_FF, axis=0))[-1])
    return head_FF * (len(head_FF) / sqrt(total))


def _product(left_FF: Floats, right_FF: Floats) -> Floats:
    """left @ right, summed from the first column to the last."""
    total = np.zeros((len(left_FF), right_FF.shape[1]))
    for column, row in zip(left_FF.T.copy(), right_FF, strict=True):
        total += np.multiply.outer(column, row)
    return total


def _composed(values: Floats, vectors_FF: Floats) -> Floats:
    """The symmetric matrix with these eigenvalues, summed from the first vector to the last."""
    total = np.zeros((len(values), len(values)))
    for value, vector in zip(values, vectors_FF.T.copy(), strict=True):
        if value != 0:
            total += np.multiply.outer(value * vector, vector)
    # v_i·(value·v_j) and v_j·(value·v_i) round apart in the last bit.
    return (total + total.T) / 2


def _symmetric(matrix: Tensor, name: str, size: int) -> Floats:
    """As float64, its lower triangle mirrored."""
    if matrix.shape != (size, size) or not bool(matrix.isfinite().all()):
        problem, remedy = "not a finite matrix of the features", f"pass [{size}, {size}]"
        raise ModelError(problem, field=name, value=tuple(matrix.shape), remedy=remedy)
    lower = matrix.detach().cpu().double().tril()
    mirrored: Floats = (lower + lower.tril(-1).T).numpy()
    return mirrored
