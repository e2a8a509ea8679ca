"""View moments: against a plain computation, and against neighbours that were searched for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy import view_moments
from secure_fl.privacy.example_sums import Shares
from secure_fl.privacy.view_moments import LEVELS, ViewMoments

WIDTH, VIEWS, CLIP = 6, 3, 0.1
MOMENTS, BOTH = (
    ViewMoments.noised(WIDTH, VIEWS, CLIP, between, Shares(8, 6, 1), 0.7, 0.02)
    for between in (False, True)
)
CENTRE = torch.linspace(-0.2, 0.3, WIDTH, dtype=torch.float64)


def features(examples: int, spread: float = 0.3, seed: int = 0) -> Tensor:
    """Views of examples, `[N, V, F]`."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(examples, 1, WIDTH, generator=generator)
    return own + spread * torch.randn(examples, VIEWS, WIDTH, generator=generator)


def added(views: Tensor, moments: ViewMoments = MOMENTS) -> Tensor:
    """What examples add to the sum, without the count."""
    return moments.sum_moments([views], CENTRE, max(1, len(views)))[:-1]


def test_moments_are_what_a_plain_computation_gives() -> None:
    x, moments = features(7, spread=0.05), ViewMoments.without_noise(WIDTH, VIEWS, CLIP, False, 4)
    both = ViewMoments.without_noise(WIDTH, VIEWS, CLIP, True, 4)
    said, beside = (
        each.opened_moments(each.sum_moments([x[:3], x[3:]], CENTRE, 7), 4)
        for each in (moments, both)
    )
    expected, between = np.zeros((WIDTH, WIDTH)), np.zeros((WIDTH, WIDTH))
    for example in x.double().numpy():
        unit = np.array([row / np.linalg.norm(row) for row in example]) - CENTRE.numpy()
        unit = np.array([row / np.linalg.norm(row) for row in unit])
        matrix = np.cov(unit.T, bias=True)
        expected += matrix / max(np.linalg.norm(matrix), CLIP)
        between += np.outer(unit.mean(0), unit.mean(0))
    assert said.examples == beside.examples == 7
    assert said.deviation == 0
    assert said.between is None
    assert beside.between is not None
    for found, plain in (
        (said.within, expected),
        (beside.within, expected),
        (beside.between, between),
    ):
        np.testing.assert_allclose(found.numpy(), plain / 7, atol=2 / LEVELS)
        assert torch.equal(found, found.T)


def test_the_centre_is_the_mean_of_unit_rows() -> None:
    x, moments = features(5)[:, 0], ViewMoments.without_noise(WIDTH, VIEWS, CLIP, False, 4)
    said = moments.centre.opened(moments.sum_features([x[:2], x[2:]], 5), 3)
    mean = (x / x.norm(dim=1, keepdim=True)).double().mean(0)
    torch.testing.assert_close(said.mean, mean, atol=1.5 / moments.centre.levels, rtol=0)


def test_a_matrix_that_is_larger_than_a_block_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = added(features(6))
    monkeypatch.setattr(view_moments, "_ROWS", 4)
    monkeypatch.setattr(view_moments, "_TOGETHER", 2)
    assert torch.equal(added(features(6)), whole)


ODD = st.sampled_from([0.0, -0.0, 1e-38, 1.0, -1.0, 3e38, -3e38, float("nan"), float("inf")])
EXAMPLE = st.lists(
    st.one_of(st.floats(-5, 5, width=32), ODD), min_size=VIEWS * WIDTH, max_size=VIEWS * WIDTH
).map(lambda values: torch.tensor(values).view(1, VIEWS, WIDTH))


@pytest.mark.parametrize("moments", [MOMENTS, BOTH], ids=["within", "both"])
@settings(max_examples=100)
@given(one=EXAMPLE, other=EXAMPLE)
def test_no_example_moves_either_sum_further_than_charged(
    moments: ViewMoments, one: Tensor, other: Tensor
) -> None:
    of_features = [moments.sum_features([each[:, 0]], 1) for each in (one, other)]
    of_views = [moments.sum_moments([each], CENTRE, 1) for each in (one, other)]
    for (x, y), event in zip((of_features, of_views), moments.events(), strict=True):
        assert x[-1] == y[-1]
        for each in (x[:-1], y[:-1]):
            assert int(each.square().sum()) <= event.l2**2
            assert int(each.abs().sum()) <= event.l1
        assert int((x - y).square().sum()) <= event.l2_replace**2
        assert int((x - y).abs().sum()) <= event.l1_replace


def test_examples_add_up_whoever_is_beside_them() -> None:
    """Each example's part is its own: alone, and beside one that is huge or not finite."""
    x = features(9)
    x[3], x[5] = 1e30, float("nan")
    apart = sum((added(x[[place]]) for place in range(9)), torch.zeros_like(added(x[:1])))
    assert torch.equal(added(x), apart)
    assert not added(x[[5]]).any()
    assert not added(torch.zeros(1, VIEWS, WIDTH)).any()


def test_views_that_are_alike_add_nothing() -> None:
    assert not added(features(4, spread=0.0)).any()


def farthest(moments: ViewMoments, steps: int = 150) -> float:
    """The longest change by one example that a climb finds, over what is charged."""
    others, generator = features(6, seed=1), torch.Generator().manual_seed(2)
    event, without = moments.moments.event(), None

    def length(x: Tensor) -> float:
        with_x = moments.sum_moments([torch.cat([x, others])], CENTRE, 7)
        return float((with_x - without).double().norm()) / event.l2

    without = moments.sum_moments([others], CENTRE, 7)
    x, size = features(1, seed=3), 0.3
    best = length(x)
    for _ in range(steps):
        moved = x + size * torch.randn(x.shape, generator=generator)
        if (found := length(moved)) > best:
            x, best, size = moved, found, 1.5 * size
        else:
            size *= 0.9
    return best


def test_an_optimised_neighbour_reaches_what_is_charged_and_no_more() -> None:
    assert 0.99 < farthest(MOMENTS) <= 1
    assert 0.9 < farthest(BOTH) <= 1


def _unchecked(made: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """As a class without the check of norms would be."""

    def of_views(self: ViewMoments, views: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        total, squares = made(self, views, centre)
        return total, torch.zeros_like(squares)

    return of_views


def _no_clip(self: ViewMoments, units: Tensor) -> Tensor:
    return (units - units.mean(1, keepdim=True)) / sqrt(self.views * CLIP)


def _rows_clipped(self: ViewMoments, units: Tensor) -> Tensor:
    """Each view's own row is bounded, before it is squared."""
    rows = units - units.mean(1, keepdim=True)
    return rows / (rows.norm(dim=2, keepdim=True) / sqrt(CLIP)).clamp_min(1) / sqrt(CLIP)


def _coupled(self: ViewMoments, units: Tensor) -> Tensor:
    """Views are taken around the mean of all examples that are computed together."""
    rows = units - units.mean((0, 1), keepdim=True)
    norm = torch.linalg.matrix_norm(rows @ rows.mT) / VIEWS
    return rows / (VIEWS * norm.clamp_min(CLIP)).sqrt()[:, None, None]


@pytest.mark.parametrize("within", [_no_clip, _rows_clipped])
def test_a_matrix_that_was_not_clipped_is_refused(within: Callable[..., Tensor]) -> None:
    with patch.object(ViewMoments, "_within", within), pytest.raises(PrivacyError):
        farthest(MOMENTS)


@pytest.mark.parametrize("within", [_no_clip, _rows_clipped, _coupled])
def test_a_neighbour_that_moves_too_much_is_found(within: Callable[..., Tensor]) -> None:
    """Clips that are missing or too early where nothing checks norms; views of two examples that
    are coupled where each norm is right.
    """
    unchecked = _unchecked(ViewMoments._of_views)
    with (
        patch.object(ViewMoments, "_within", within),
        patch.object(ViewMoments, "_of_views", unchecked),
    ):
        assert farthest(MOMENTS) > 1.05


def test_the_centre_is_paid_for() -> None:
    """σ₁⁻² + σ₂⁻² is that of one release with the noise that was asked for."""
    noises = MOMENTS.centre.noise_multiplier, MOMENTS.moments.noise_multiplier
    assert sum(noise**-2 for noise in noises) == pytest.approx(0.7**-2)
    assert noises[0] ** -2 == pytest.approx(0.02 * 0.7**-2)
    one, other = MOMENTS.events()
    assert (one.dimension, other.dimension) == (WIDTH + 1, WIDTH * (WIDTH + 1) // 2 + 1)


def test_noise_is_that_of_a_symmetric_matrix_whatever_the_axes() -> None:
    """Off the diagonal its deviation is 1/√2 of that on it."""
    bare = ViewMoments.without_noise(80, 2, CLIP, False, 8)
    draws = torch.randn(80 * 81 // 2 + 1, generator=torch.Generator().manual_seed(0)) * 1e6
    draws[-1] = bare.moments.levels
    matrix = bare.opened_moments(draws.long(), 8).within
    off = matrix[~torch.eye(80, dtype=torch.bool)].std() / matrix.diag().std()
    assert float(off) == pytest.approx(1 / sqrt(2), rel=0.2)


@pytest.mark.parametrize(("name", "value"), [("views", 1), ("clip", 0.0), ("clip", 1.5)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(PrivacyError):
        replace(MOMENTS, **{name: value})


def test_features_of_another_form_are_refused() -> None:
    with pytest.raises(PrivacyError, match="centre"):
        MOMENTS.sum_moments([features(2)], CENTRE[:-1], 2)
    with pytest.raises(PrivacyError, match="features"):
        MOMENTS.sum_moments([features(2)[:, :2]], CENTRE, 2)
    with pytest.raises(PrivacyError, match="features"):
        MOMENTS.sum_features([features(2)], 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_centre_that_no_sum_made_is_refused(value: float) -> None:
    """Whoever serves a federation says what the centre is."""
    centre = CENTRE.clone()
    centre[1] = value
    with pytest.raises(PrivacyError, match="not the released centre"):
        MOMENTS.sum_moments([features(2)], centre, 2)
