"""Our own eigen-decomposition: right, whatever the matrix, and made of exact operations only."""

from __future__ import annotations

import hashlib
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secure_fl.errors import ModelError
from secure_fl.models.eigen import Floats, symmetric_eigen


def spectrum(values: list[float], seed: int = 0) -> Floats:
    """A symmetric matrix with these eigenvalues, in random directions."""
    drawn = np.random.default_rng(seed).normal(size=(len(values), len(values)))
    basis = np.linalg.qr(drawn)[0]
    made: Floats = (basis * np.array(values)) @ basis.T
    return (made + made.T) / 2


def check(matrix: Floats) -> None:
    values, vectors = symmetric_eigen(matrix)
    size, scale = len(matrix), float(np.abs(matrix).max()) or 1.0
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-13 * size)
    np.testing.assert_allclose((vectors * values) @ vectors.T, matrix, atol=1e-13 * size * scale)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-13 * size * scale)


@given(
    st.integers(1, 12).flatmap(
        lambda n: arrays(np.float64, (n, n), elements=st.floats(-1e6, 1e6, width=32))
    )
)
def test_any_symmetric_matrix(drawn: Floats) -> None:
    check(np.tril(drawn) + np.tril(drawn, -1).T)


@pytest.mark.parametrize(
    "values",
    [[1.0] * 9, [0.0] * 5, [1.0, 1.0, 1.0, 2.0, 2.0], [-1.0, 0.0, 1.0], [1e-12, 1.0, 1e6], [7.0]],
    ids=str,
)
def test_repeated_vanishing_and_spread_eigenvalues(values: list[float]) -> None:
    check(spectrum(values))
    check(np.diag(values))


def test_noise_around_a_fast_spectrum() -> None:
    noise = np.random.default_rng(1).normal(size=(80, 80)) * 1e-3
    check(spectrum([0.3 * 0.9**k for k in range(80)]) + noise + noise.T)


def test_tiny_and_huge_entries_keep_their_precision() -> None:
    matrix = spectrum([1.0, 2.0, 5.0])
    values = symmetric_eigen(matrix)[0]
    for scale in (2.0**-900, 2.0**900):
        np.testing.assert_array_equal(symmetric_eigen(matrix * scale)[0], values * scale)


def test_only_the_lower_triangle_is_read() -> None:
    matrix = spectrum([1.0, 2.0, 5.0, 9.0])
    other = np.tril(matrix) + np.triu(np.full((4, 4), 77.0), 1)
    for ours, theirs in zip(symmetric_eigen(matrix), symmetric_eigen(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_bits_are_the_same_everywhere() -> None:
    """Of a matrix of small integers, whose digest was taken once: another processor, another
    numpy or another number of threads must give it too.
    """
    step = np.arange(24)
    matrix = ((step[:, None] * step + step[:, None] + step) % 17 - 8).astype(np.float64)
    values, vectors = symmetric_eigen(matrix)
    found = hashlib.sha256(values.tobytes() + vectors.tobytes()).hexdigest()
    assert found[:16] == "a3162edcad133ed8"


def test_rows_are_summed_in_the_written_order() -> None:
    """What the digest above rests on: numpy adds row after row."""
    rows = np.random.default_rng(2).normal(size=(257, 130)) * 10.0 ** np.arange(130)
    np.testing.assert_array_equal(np.add.reduce(rows, axis=0), reduce(np.add, rows))
    column = rows[:, 0]
    assert np.cumsum(column)[-1] == reduce(lambda total, value: total + value, column)


@pytest.mark.parametrize(
    "matrix", [np.ones((2, 3)), np.ones(4), np.full((2, 2), np.nan), np.ones((0, 0))]
)
def test_what_is_no_matrix_is_refused(matrix: Floats) -> None:
    with pytest.raises(ModelError, match="square matrix"):
        symmetric_eigen(matrix)
