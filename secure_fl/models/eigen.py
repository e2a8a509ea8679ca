"""Eigenvalues and vectors of a symmetric matrix, the same bits on every machine.

Parties that replicate a state compare digests of it, and LAPACK's last bits depend on the processor
and on the number of threads. Here every number comes from additions, products, quotients and square
roots of float64, which IEEE 754 rounds in one way only, in an order that is written down: sums run
over rows from the first to the last.

Householder's reduction to tridiagonal form, then implicit QL steps with Wilkinson's shift (Golub &
Van Loan, Matrix Computations, §8.3). Some 9 n³ operations; about three seconds for n = 512 on one
core.
"""

from __future__ import annotations

from math import copysign, sqrt

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import ModelError

Floats = NDArray[np.float64]

_MOST_STEPS = 60
"""QL steps for one eigenvalue; two are usual, and more than thirty have not been seen."""
_SMALLEST = 2.0**-52


def symmetric_eigen(matrix_FF: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues `[F]`, ascending, and eigenvectors `[F, F]` in columns.

    Only the lower triangle is read. A vector's sign is arbitrary, but everywhere the same.

    Raises:
        ModelError: not a square matrix of finite numbers.
    """
    matrix = np.array(matrix_FF, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] >= 1
    if not square or not np.isfinite(matrix).all():
        problem, remedy = "not a square matrix of finite numbers", "pass a sum of moments [F, F]"
        raise ModelError(problem, field="matrix", value=matrix.shape, remedy=remedy)
    # A power of two: scaling neither rounds nor lets squares of small entries vanish.
    scale = 2.0 ** np.frexp(np.abs(matrix).max() or 1.0)[1]
    matrix = np.tril(matrix / scale) + np.tril(matrix / scale, -1).T
    diagonal, beside, rows = _tridiagonal(matrix)
    _diagonalise(diagonal, beside, rows)
    order = np.argsort(diagonal, kind="stable")
    return np.array(diagonal)[order] * scale, rows[order].T.copy()


def _tridiagonal(matrix_FF: Floats) -> tuple[list[float], list[float], Floats]:
    """Householder's reflections, in place: the diagonal, what lies beside it, and the transposed
    orthogonal matrix that leads back.
    """
    size = len(matrix_FF)
    reflections = list[tuple[Floats, float]]()
    beside = [0.0] * size
    for at in range(size - 1):
        vector = matrix_FF[at + 1 :, at].copy()
        length = sqrt(_in_order(vector * vector))
        beside[at] = -copysign(length, vector[0])
        vector[0] -= beside[at]
        norm = _in_order(vector * vector)
        factor = 2 / norm if norm > 0 else 0.0
        rest = matrix_FF[at + 1 :, at + 1 :]
        image = factor * np.add.reduce(rest * vector[:, None], axis=0)
        image -= (factor / 2 * _in_order(image * vector)) * vector
        rest -= np.multiply.outer(vector, image) + np.multiply.outer(image, vector)
        reflections.append((vector, factor))
    rows = np.eye(size)
    for at, (vector, factor) in reversed(list(enumerate(reflections, start=1))):
        part = rows[at:, at:]
        along = factor * np.add.reduce(part * vector[:, None], axis=0)
        part -= np.multiply.outer(vector, along)
    return [float(each) for each in matrix_FF.diagonal()], beside, rows.T.copy()


def _diagonalise(diagonal: list[float], beside: list[float], rows_FF: Floats) -> None:
    """QL steps, in place: `diagonal` becomes the eigenvalues, `rows_FF` their vectors."""
    size = len(diagonal)
    for first in range(size):
        for _ in range(_MOST_STEPS):
            last = _block_end(diagonal, beside, first)
            if last == first:
                break
            _ql_step(diagonal, beside, rows_FF, first, last)


def _block_end(diagonal: list[float], beside: list[float], first: int) -> int:
    """The last row that is still tied to row `first`."""
    for at in range(first, len(diagonal) - 1):
        if abs(beside[at]) <= _SMALLEST * (abs(diagonal[at]) + abs(diagonal[at + 1])):
            return at
    return len(diagonal) - 1


def _ql_step(
    diagonal: list[float], beside: list[float], rows_FF: Floats, first: int, last: int
) -> None:
    """One implicit step on rows `first` to `last`: rotations of neighbours, from the last upward,
    that chase the shift's bulge out.
    """
    shift = (diagonal[first + 1] - diagonal[first]) / (2 * beside[first])
    root = copysign(sqrt(shift * shift + 1), shift)
    bulge = diagonal[last] - diagonal[first] + beside[first] / (shift + root)
    sine, cosine, carried = 1.0, 1.0, 0.0
    for at in range(last - 1, first - 1, -1):
        across, along = sine * beside[at], cosine * beside[at]
        length = sqrt(across * across + bulge * bulge)
        beside[at + 1] = length
        if length == 0:  # the block has fallen apart: what is left of it is done next
            diagonal[at + 1] -= carried
            beside[last] = 0.0
            return
        sine, cosine = across / length, bulge / length
        bulge = diagonal[at + 1] - carried
        twist = (diagonal[at] - bulge) * sine + 2 * cosine * along
        carried = sine * twist
        diagonal[at + 1] = bulge + carried
        bulge = cosine * twist - along
        upper, lower = rows_FF[at], rows_FF[at + 1]
        turned = cosine * upper - sine * lower
        rows_FF[at + 1] = sine * upper + cosine * lower
        rows_FF[at] = turned
    diagonal[first] -= carried
    beside[first], beside[last] = bulge, 0.0


def _in_order(values: Floats) -> float:
    """Their sum from the first to the last."""
    return float(np.cumsum(values)[-1])
