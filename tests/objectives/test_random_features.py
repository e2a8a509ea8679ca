"""Random features: unit norm exactly, the Gaussian kernel on average, and the mean that
uniformity needs.
"""

from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.errors import ObjectiveError
from secure_fl.objectives.losses import uniformity_loss
from secure_fl.objectives.random_features import KernelMean, RandomFeatures
from secure_fl_kernels.reference import normalize


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    pairs=st.integers(1, 40),
    dimension=st.integers(1, 9),
    scale=st.floats(1e-9, 1e9),
    seed=st.integers(0, 99),
    step=st.integers(0, 2**31),
)
def test_features_have_norm_one_exactly_in_every_step(
    pairs: int, dimension: int, scale: float, seed: int, step: int
) -> None:
    features = RandomFeatures.draw(dimension, 2.0, seed, pairs).at(step)
    assert features.frequencies.shape == (pairs, dimension)
    z = scale * embeddings(5, dimension, seed=seed)
    assert torch.allclose(features(z).norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(
        features(0 * z).norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-12
    )


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_inner_products_are_the_kernel_and_the_error_falls_with_the_root_of_pairs(t: float) -> None:
    z = normalize(embeddings(30, 8))
    kernel = torch.exp(-t * torch.cdist(z, z).square())
    errors = []
    for pairs in (100, 10_000):
        phi = RandomFeatures.draw(8, t, 0, pairs)(z)
        errors.append(float((phi @ phi.T - kernel).square().mean().sqrt()))
    assert errors[0] < 1.5 / 100**0.5
    assert 5 < errors[0] / errors[1] < 20


def test_the_map_is_public_and_repeatable() -> None:
    first, again, other = (RandomFeatures.draw(8, 2.0, seed) for seed in (0, 0, 1))
    assert torch.equal(first.frequencies, again.frequencies)
    assert not torch.equal(first.frequencies, other.frequencies)
    assert torch.equal(first.at(0).frequencies, first.frequencies)
    assert torch.equal(first.at(3).frequencies, first.at(7).at(3).frequencies)
    with pytest.raises(ObjectiveError, match="pairs"):
        RandomFeatures.draw(8, 2.0, 0, 0)


def test_steps_draw_independent_maps() -> None:
    """Frequencies of 200 steps: no two alike, and correlated as little as chance has it."""
    drawn = torch.stack(
        [RandomFeatures.draw(8, 2.0, 0, 25).at(step).frequencies.flatten() for step in range(200)]
    )
    off = torch.corrcoef(drawn).fill_diagonal_(0)
    assert float(off.abs().max()) < 6 / drawn.shape[1] ** 0.5
    assert abs(float(off.square().mean()) * drawn.shape[1] - 1) < 0.1


def test_both_views_share_one_unit_of_norm() -> None:
    statistic = KernelMean(RandomFeatures.draw(6, 2.0, 0, 30))
    z = embeddings(50, 2, 6)
    assert float(statistic.contributions(z).norm(dim=1).max()) < 1
    same = statistic.contributions(z[:, :1].expand(-1, 2, -1))
    assert torch.allclose(same.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert statistic.contributions(z).shape == (50, statistic.size)


def test_the_kernel_mean_is_uniformity_of_distinct_pairs() -> None:
    """One view, many features: exp(uniformity), which counts no example with itself."""
    z = embeddings(40, 6)
    statistic = KernelMean(RandomFeatures.draw(6, 2.0, 0, 40_000))
    released = statistic.mean(statistic.contributions(z[:, None]).sum(0), 40, 0.0)
    # mean() divides by n² where uniformity divides by n(n − 1).
    assert float(released[-2]) == pytest.approx(exp(float(uniformity_loss(z))) * 39 / 40, rel=0.05)


def test_the_noise_s_own_square_is_taken_out_and_the_floor_holds() -> None:
    statistic = KernelMean(RandomFeatures.draw(6, 2.0, 0, 200))
    total = statistic.contributions(embeddings(400, 2, 6)).sum(0)
    clean = float(statistic.mean(total, 400, 0.0)[-2])
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        noise = 10 * torch.randn(statistic.size, generator=generator, dtype=torch.float64)
        found.append(float(statistic.mean(total + noise, 400, 10.0)[-2]))
    assert sum(found) / len(found) == pytest.approx(clean, rel=0.1)
    assert float(statistic.mean(0 * total, 400, 0.0)[-2]) == pytest.approx(exp(-4))
