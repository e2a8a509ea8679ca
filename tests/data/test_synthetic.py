"""Examples that nobody owns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.data.synthetic import synthetic_examples
from secure_fl.errors import DataError

SHAPES = [(1, 28, 28), (3, 16, 24), (2, 64), (9,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_seed_makes_the_same_examples_and_leaves_the_global_generator_alone(
    shape: tuple[int, ...],
) -> None:
    state = torch.get_rng_state()
    first, again, other = (synthetic_examples(shape, 6, seed) for seed in (1, 1, 2))
    assert first.shape == (6, *shape)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first.flatten(1).unique(dim=0)) == 6
    assert synthetic_examples(shape, 0).shape == (0, *shape)


@settings(max_examples=25)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0),
)
def test_no_image_is_empty_or_out_of_range(
    channels: int, height: int, width: int, seed: int
) -> None:
    x = synthetic_examples((channels, height, width), 50, seed)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert float(x.flatten(2).amax(2).min()) > 0.1
    if min(height, width) >= 8:
        assert float(x.flatten(1).std(1).min()) > 0.02


@pytest.mark.parametrize("length", [2, 3, 20, 500])
def test_series_have_mean_0_and_deviation_1(length: int) -> None:
    x = synthetic_examples((3, length), 200)
    assert float(x.mean(2).abs().max()) < 1e-5
    assert float((x.std(2, correction=0) - 1).abs().max()) < 1e-4


def test_series_hold_slow_and_fast_movements() -> None:
    spectrum = torch.fft.rfft(synthetic_examples((1, 128), 500)).abs().square()[:, 0]
    share = spectrum[:, 8:].sum(1) / spectrum.sum(1)
    assert float(share.quantile(0.2)) < 0.1
    assert float(share.quantile(0.95)) > 0.5


@pytest.mark.parametrize("columns", [1, 2, 12])
def test_vectors_are_normal_columns_some_of_them_correlated(columns: int) -> None:
    x = synthetic_examples((columns,), 4000)
    assert float(x.mean(0).abs().max()) < 0.08
    assert float((x.std(0) - 1).abs().max()) < 0.06
    if columns > 1:
        correlations = torch.corrcoef(x.T).fill_diagonal_(0)
        assert 0.2 < float(correlations.abs().max()) < 0.6


@pytest.mark.parametrize("shape", [(), (1, 2, 3, 4), (0, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="no image, series or vector"):
        synthetic_examples(shape, 3)
