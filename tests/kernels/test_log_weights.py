"""NT-Xent's weights in the exponent: how exact the expansion is, when it is used, and that the
gradient does not notice.
"""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels.cpu import log_weights, ntxent

HALF_UNIT = 2.0**-24
"""Half a unit in the last place of float32 at 1."""


def spread(half: float, rows: int, seed: int = 0, middle: float = -7.0) -> Tensor:
    """log w between `middle` ± `half`, both ends included."""
    within = (
        torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    )
    within[:2] = torch.tensor([-1.0, 1.0])
    return middle + half * within


def uneven(half: int, spread_out: float, seed: int, apart: float = 0.05) -> Tensor:
    """Two views `[2 · half, 24]` of rows of which a part, as large as `1 − spread_out`, crowds
    together: their weights are the smallest.

    With views alike 2h is at most log(rows), as each row's own positive is in its sum; with views
    `apart` it is not bounded so.
    """
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(half, 24, generator=generator, dtype=torch.float64)
    crowd = torch.rand(half, 1, generator=generator, dtype=torch.float64) > spread_out
    base = torch.where(crowd, 0.1 * base + torch.ones(24, dtype=torch.float64), base)
    return torch.cat(
        [base, base + apart * torch.randn(half, 24, generator=generator, dtype=torch.float64)]
    )


def backward(x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(gradient by the raw rows, log w)."""
    _, scaled, inverse, statistics, own, _ = ntxent.forward(x, temperature, None)
    gradient = ntxent.backward(
        x.new_ones(()),
        None,
        scaled,
        inverse,
        statistics,
        own,
        None,
        temperature,
        x.shape[1],
        x.dtype,
    )
    return gradient, -statistics[1] - torch.logaddexp(statistics[0], x.new_zeros(()))


@settings(max_examples=60, deadline=None)
@given(a=st.floats(-1, 1), b=st.floats(-1, 1), reach=st.sampled_from(log_weights._REACHES))
def test_the_expansion_is_exact_to_half_a_unit(
    a: float, b: float, reach: tuple[float, int]
) -> None:
    points = torch.tensor([a, b], dtype=torch.float64) * reach[0]
    values, signs = log_weights.terms(points, *reach)
    found = (values * signs) @ values.T
    exact = np.logaddexp(points[:, None].numpy(), points[None].numpy()) - log(2)
    assert float(np.abs(found.numpy() - exact).max()) < HALF_UNIT


@pytest.mark.parametrize("half", [0.0, 0.3, 1.49, 1.5001, 3.99])
def test_weights_come_back_from_single_precision(half: float) -> None:
    log_w = spread(half, 3000).float()
    found = log_weights.expanded(log_w, 10.0)
    assert found is not None
    assert found.left.shape[1] == (8 if half <= 1.5 else 16)
    exact = log_w.double().exp()
    weights = (found.left @ found.right.T).double().exp() * found.factor
    assert float((weights / (exact[:, None] + exact) - 1).abs().max()) < 4e-6


@pytest.mark.parametrize(
    ("log_w", "steepest"),
    [
        (spread(4.01, 3000).float(), 10.0),
        (spread(1.0, 3000), 10.0),
        (spread(1.0, 100).float(), 10.0),
        (spread(1.0, 3000).float(), 55.0),
        (spread(1.0, 3000).float().index_fill(0, torch.tensor([7]), torch.nan), 10.0),
        (spread(1.0, 3000).float().index_fill(0, torch.tensor([7]), -torch.inf), 10.0),
        (spread(1.0, 3000).float().index_fill(0, torch.tensor([7]), torch.inf), 10.0),
    ],
    ids=["too wide", "float64", "few rows", "steep", "NaN", "no weight", "endless weight"],
)
def test_what_does_not_fit_is_added_tile_by_tile(log_w: Tensor, steepest: float) -> None:
    assert log_weights.expanded(log_w, steepest) is None


def test_reduced_precision_is_added_tile_by_tile() -> None:
    log_w = spread(1.0, 3000).float()
    torch.set_float32_matmul_precision("medium")
    try:
        assert log_weights.expanded(log_w, 10.0) is None
    finally:
        torch.set_float32_matmul_precision("highest")
    assert log_weights.expanded(log_w, 10.0) is not None


@settings(max_examples=30, deadline=None)
@given(
    half=st.integers(2, 700),
    spread_out=st.floats(0, 1),
    temperature=st.floats(0.05, 1),
    apart=st.floats(0, 2),
)
def test_the_gradient_is_that_of_double_precision(
    half: int, spread_out: float, temperature: float, apart: float
) -> None:
    """Whatever the spread; rows are as few as float32's own error allows, so this asks for the
    terms at any number of rows.
    """
    x = uneven(half, spread_out, half, apart)
    exact, _ = backward(x, temperature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_weights, "_FEWEST_ROWS", 0)
        found, _ = backward(x.float(), temperature)
        patch.setattr(log_weights, "_REACHES", ())
        added, _ = backward(x.float(), temperature)
    error, before = (float((gradient.double() - exact).norm()) for gradient in (found, added))
    assert error <= 2 * before + 2e-6 * float(exact.norm())


@pytest.mark.parametrize(
    ("temperature", "apart", "terms"),
    [(0.5, 0.05, 8), (0.2, 0.05, 16), (0.1, 0.05, 16), (0.05, 2.0, None)],
)
def test_each_way_is_taken_and_right(temperature: float, apart: float, terms: int | None) -> None:
    x = uneven(1100, 0.5, 3, apart)
    exact, log_w = backward(x, temperature)
    found = log_weights.expanded(log_w.float(), 1 / temperature)
    assert (found.left.shape[1] if found else None) == terms
    got, _ = backward(x.float(), temperature)
    assert float((got.double() - exact).norm()) <= 2e-6 * float(exact.norm())


def test_rows_of_zero_and_nan_do_as_in_the_sum() -> None:
    x = uneven(1100, 0.5, 4).float()
    x[5] = 0
    gradient, _ = backward(x, 0.2)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[5].abs().max()) == 0
    x[9, 2] = torch.nan
    assert bool(torch.isnan(backward(x, 0.2)[0]).all())
