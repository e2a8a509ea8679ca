"""Whitening from a noised moment: closed forms, symmetries, and what noise leaves of it."""

from __future__ import annotations

from math import inf, nan, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secure_fl.errors import ModelError
from secure_fl.models.whitening import fisher, noise_edge, ridge, shrunk, whitening

MANY = 10**12
"""Examples, so that sampling explains nothing."""


def noise(size: int, deviation: float, seed: int) -> Tensor:
    """As a release's: the upper triangle drawn alike, off-diagonals over √2, mirrored."""
    generator = torch.Generator().manual_seed(seed)
    drawn = deviation * torch.randn(size, size, generator=generator, dtype=torch.float64)
    upper = drawn.triu(1) / sqrt(2)
    return upper + upper.T + drawn.diag().diag()


def rotation(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(drawn).Q
    return basis


def moment(size: int, seed: int = 0) -> Tensor:
    """Eigenvalues that fall by a third from one to the next, in random directions."""
    basis = rotation(size, seed)
    values = 0.3 * (2 / 3) ** torch.arange(size, dtype=torch.float64)
    made = (basis * values) @ basis.T
    return (made + made.T) / 2


def test_a_diagonal_moment_without_noise_has_a_closed_form() -> None:
    values = torch.tensor([0.3, 0.1, 0.02, 0.0], dtype=torch.float64)
    gains = (values + ridge(0.0, 4, 50)).rsqrt()
    expected = gains * 4 / gains.square().sum().sqrt()
    torch.testing.assert_close(whitening(values.diag(), 0.0, 50), expected.diag())


def test_white_stays_white() -> None:
    """The identity, at the scale where a unit vector has coordinates of mean square 1."""
    same = torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(whitening(0.1 * same, 0.0, 100), 3 * same)


def test_what_comes_out_is_white() -> None:
    drawn = moment(6)
    head = whitening(drawn, 0.0, MANY)
    after = head @ drawn @ head
    torch.testing.assert_close(after, after[0, 0] * torch.eye(6).double(), rtol=0, atol=1e-3)


@given(st.integers(2, 7), st.integers(0, 1000), st.floats(0, 0.05))
def test_the_head_turns_with_the_features(size: int, seed: int, deviation: float) -> None:
    drawn, turn = moment(size, seed) + noise(size, deviation, seed), rotation(size, seed + 1)
    straight = whitening(drawn, deviation, 1000)
    turned = whitening(turn @ drawn @ turn.T, deviation, 1000)
    torch.testing.assert_close(turned, turn @ straight @ turn.T, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 8), st.integers(0, 1000), st.floats(0, 10), st.booleans())
def test_symmetric_positive_definite_and_of_one_scale(
    size: int, seed: int, deviation: float, beside: bool
) -> None:
    """Whatever the noise made of the moment, indefinite ones included."""
    drawn = moment(size, seed) + noise(size, deviation, seed)
    head = whitening(drawn, deviation, 100, moment(size, seed + 1) if beside else None)
    assert torch.equal(head, head.T)
    assert float(torch.linalg.eigvalsh(head)[0]) > 0
    torch.testing.assert_close(float(head.square().sum()), float(size**2))


def test_where_noise_hides_everything_the_prior_is_left() -> None:
    public = moment(40, seed=3)
    for seed in range(5):
        drawn = moment(40) + noise(40, 1e3, seed)
        torch.testing.assert_close(whitening(drawn, 1e3, 2, public), _prior_alone(public))
        same = sqrt(40) * torch.eye(40, dtype=torch.float64)
        torch.testing.assert_close(whitening(drawn, 1e3, 2), same)


def _prior_alone(public: Tensor) -> Tensor:
    """Its whitening by LAPACK, with the λ that stands beside a prior."""
    values, vectors = torch.linalg.eigh(public)
    gains = (values.clamp(min=0) + 2e-3).rsqrt()
    return vectors @ (gains * 40 / gains.square().sum().sqrt()).diag() @ vectors.T


def test_without_noise_a_prior_counts_nothing() -> None:
    drawn = moment(10)
    torch.testing.assert_close(
        whitening(drawn, 0.0, MANY, moment(10, 5)), whitening(drawn, 0, MANY)
    )


def test_the_edge_is_where_noise_ends() -> None:
    """Of 200 draws of noise alone at most one passes it, and all come close."""
    largest = [float(torch.linalg.eigvalsh(noise(60, 1.0, seed))[-1]) for seed in range(200)]
    edge = noise_edge(1.0, 60)
    assert sum(value > edge for value in largest) <= 1
    assert min(largest) > 0.75 * edge


def test_shrinking_by_the_edge_estimates_better_than_keeping_or_less() -> None:
    """The mean error of the estimate behind the head, against the raw sum's, soft thresholding's
    and a wrong edge's.
    """

    def error(estimate: Tensor) -> float:
        return float((estimate - drawn).square().sum())

    errors = torch.zeros(4)
    drawn = moment(50)
    for seed in range(20):
        raw = drawn + noise(50, 0.01, seed)
        edge = 0.01 * sqrt(100)
        values, vectors = torch.linalg.eigh(raw)
        soft = (vectors * (values - edge).clamp(min=0)) @ vectors.T
        ours, wrong = (torch.from_numpy(shrunk(raw.numpy(), e)) for e in (edge, edge / 3))
        errors += torch.tensor([error(ours), error(raw), error(soft), error(wrong)])
    assert errors[0] < 0.9 * errors[1:].min()


def test_more_noise_and_fewer_examples_ask_for_more_ridge() -> None:
    assert ridge(0.1, 512, 1000) > ridge(0.01, 512, 1000) > ridge(0.0, 512, 10_000) > 0


def test_fisher_of_diagonal_moments_has_a_closed_form() -> None:
    """k = 0.5; what is unseen counts for 0.03 of √(2 / (F N))."""
    within = torch.tensor([0.3, 0.1, 0.02, 0.0], dtype=torch.float64)
    between = torch.tensor([0.0, 0.5, 0.1, 0.2], dtype=torch.float64)
    unseen = 0.03 * sqrt(2 / (4 * 500))
    ratio = 0.5 * (between + unseen) / (within + ridge(0.0, 4, 500))
    gains = (within + ridge(0.0, 4, 500)).rsqrt() * (ratio / (1 + ratio)).sqrt()
    expected = gains * 4 / gains.square().sum().sqrt()
    found = fisher(within.diag(), between.diag(), 0.0, 0.0, 500)
    torch.testing.assert_close(found, expected.diag())


def test_fisher_finds_the_direction_that_tells_kinds_apart() -> None:
    """Classes differ along one axis of twelve, views scatter alike in all: that axis is worth more
    after the head than before, and than after whitening, which cannot tell.
    """
    axis = rotation(12, 5)[0]
    within = 0.01 * torch.eye(12, dtype=torch.float64)
    between = 0.2 * torch.outer(axis, axis) + 0.001 * torch.eye(12, dtype=torch.float64)
    seen = fisher(within, between, 0.0, 0.0, MANY)
    share = float((axis @ seen).square().sum() / seen.square().sum())
    white = whitening(within, 0.0, MANY)
    assert share > 3 * float((axis @ white).square().sum() / white.square().sum())


@given(st.integers(2, 7), st.integers(0, 1000), st.floats(0, 0.05))
def test_fisher_turns_with_the_features(size: int, seed: int, deviation: float) -> None:
    within, turn = moment(size, seed) + noise(size, deviation, seed), rotation(size, seed + 1)
    between = moment(size, seed + 2) + noise(size, deviation, seed + 3)
    straight = fisher(within, between, deviation, deviation, 1000)
    moved = (turn @ part @ turn.T for part in (within, between))
    turned = fisher(*moved, deviation, deviation, 1000)
    torch.testing.assert_close(turned, turn @ straight @ turn.T, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 6), st.integers(0, 1000), st.floats(0, 10))
def test_fisher_is_finite_and_of_one_scale(size: int, seed: int, deviation: float) -> None:
    """Also where there is nothing between examples at all."""
    drawn, nothing = moment(size, seed) + noise(size, deviation, seed), torch.zeros(size, size)
    for between in (drawn, nothing):
        head = fisher(drawn, between, deviation, deviation, 10)
        torch.testing.assert_close(float(head.square().sum()), float(size**2))


def test_where_noise_hides_everything_fisher_is_the_prior_s_whitening_too() -> None:
    public = moment(40, seed=3)
    drawn, other = noise(40, 1e5, 1), noise(40, 1e5, 2)
    found = fisher(drawn, other, 1e5, 1e5, 1000, public)
    torch.testing.assert_close(found, _prior_alone(public), rtol=0, atol=1e-2)


@pytest.mark.parametrize("deviation", [-1.0, nan, inf])
def test_no_deviation(deviation: float) -> None:
    with pytest.raises(ModelError, match="noise_deviation"):
        whitening(torch.eye(3), deviation, 10)


@pytest.mark.parametrize(
    ("wrong", "prior"),
    [(torch.ones(3, 2), None), (torch.full((3, 3), nan), None), (torch.eye(3), torch.eye(2))],
)
def test_no_matrix_of_the_features(wrong: Tensor, prior: Tensor | None) -> None:
    with pytest.raises(ModelError, match="matrix of the features"):
        whitening(wrong, 0.0, 10, prior)


def test_no_examples() -> None:
    with pytest.raises(ModelError, match="examples"):
        whitening(torch.eye(3), 0.0, 0)
