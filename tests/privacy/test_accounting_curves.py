"""Rényi curves against the divergences of the laws that they bound, and the one-hot vector's shift
against a search for a worse pair.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent, IntegerEvent
from secure_fl.privacy.integer_curves import (
    ORDERS,
    discrete_gaussian_curve,
    gaussian_curve,
    integer_curve,
    pure_curve,
    sampled_gaussian_curve,
    skellam_curve,
)
from secure_fl.privacy.integer_noise import discrete_gaussian, skellam

ZERO, REPLACE = Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE


def divergences(log_p: np.ndarray, log_q: np.ndarray, most: int) -> np.ndarray:
    """D_α for the whole orders up to `most`."""
    from scipy.special import logsumexp

    return np.array(
        [
            logsumexp(order * log_p + (1 - order) * log_q) / (order - 1)
            for order in ORDERS[most >= ORDERS]
        ]
    )


def log_skellam(k: np.ndarray, variance: float) -> np.ndarray:
    from scipy.special import ive

    return np.log(
        ive(np.abs(k), variance)
    )  # e^(−μ) I_|k|(μ), with μ/2 in each of its two Poisson parts


def log_discrete_gaussian(k: np.ndarray, variance: float) -> np.ndarray:
    weights = -(k.astype(float) ** 2) / (2 * variance)
    return weights - np.log(np.exp(weights).sum())


@pytest.mark.parametrize("variance", [30.0, 400.0])
@pytest.mark.parametrize("shift", [1, 3, 8])
def test_skellam_stays_below_its_curve(variance: float, shift: int) -> None:
    k = np.arange(-300, 301) if variance > 100 else np.arange(-120, 121)
    exact = divergences(log_skellam(k - shift, variance), log_skellam(k, variance), 12)
    curve = skellam_curve(variance, shift, shift)[: len(exact)]
    assert (exact <= curve + 1e-9).all()
    near = exact[:3] if shift**2 < variance else exact[:1]
    assert (
        curve[: len(near)] <= near * 1.3 + 0.01
    ).all()  # and not far above where the shift is within the noise
    assert (curve > gaussian_curve(math.sqrt(variance) / shift)[: len(exact)]).all()


@pytest.mark.parametrize("parties", [1, 2, 5])
def test_a_sum_of_discrete_gaussians_stays_below_its_curve(parties: int) -> None:
    share, shift = 1.5, 2
    k = np.arange(-80, 81)
    one = np.exp(log_discrete_gaussian(np.arange(-16, 17), share))
    law = np.ones(1)
    for _ in range(parties):
        law = np.convolve(law, one)
    half = len(law) // 2
    padded = np.full(161, 1e-300)
    padded[80 - half : 81 + half] = law
    inner = slice(80 - half + shift, 81 + half - shift)
    log_law = np.log(padded)
    exact = divergences(np.roll(log_law, shift)[inner], log_law[inner], 4)
    curve = discrete_gaussian_curve(share * parties, shift, shift, parties, 1)[: len(exact)]
    assert k.shape == padded.shape
    assert (exact <= curve + 1e-6).all()


def test_discrete_gaussian_penalty_grows_with_small_shares() -> None:
    assert discrete_gaussian_curve(100.0, 3, 3, 1, 1000) == pytest.approx(gaussian_curve(10 / 3))
    assert (discrete_gaussian_curve(100.0, 3, 3, 400, 1000) > 2 * gaussian_curve(10 / 3)).any()
    assert discrete_gaussian_curve(1e4, 3, 3, 100, 1000) == pytest.approx(
        gaussian_curve(100 / 3), rel=1e-6
    )


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.01), (0.7, 0.3), (4.0, 0.1), (2.0, 1.0)])
def test_sampled_gaussian_is_the_published_curve(noise: float, rate: float) -> None:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    orders = [2, 5, 16, 64, 128]
    theirs = RdpAccountant(orders).compose(
        dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
    )
    ours = sampled_gaussian_curve(noise, rate)
    assert [ours[order == ORDERS][0] for order in orders] == pytest.approx(
        list(theirs._rdp), rel=1e-8
    )


@pytest.mark.parametrize("pure", [0.05, 1.0, 8.0])
def test_pure_mechanisms_stay_below_their_curve(pure: float) -> None:
    truth = 1 / (1 + math.exp(-pure))
    log_p, log_q = (np.log(np.array(pair)) for pair in ((truth, 1 - truth), (1 - truth, truth)))
    exact = divergences(log_p, log_q, 64)
    assert pure_curve(pure, bounded_range=False)[: len(exact)] == pytest.approx(exact, rel=1e-9)
    assert (
        pure_curve(pure, bounded_range=True) <= np.minimum(ORDERS * pure**2 / 8, pure) + 1e-12
    ).all()
    weights = np.exp(
        pure / 2 * np.array([[1.0, 0.0, 0.3], [0.0, 1.0, 0.3]])
    )  # the exponential mechanism, scores that move by up to 1
    p, q = weights / weights.sum(axis=1, keepdims=True)
    assert (
        divergences(np.log(p), np.log(q), 64) <= pure_curve(pure, bounded_range=True)[:63] + 1e-12
    ).all()


@pytest.mark.parametrize(("bits", "published"), [(10, 5.13), (12, 4.600), (14, 4.561)])
def test_the_published_skellam_table(bits: int, published: float) -> None:
    """d = 1e6, C = 1, z = 8, T = 50, δ = 1e-6, rounded at random under the condition of the
    distributed discrete Gaussian.
    """
    scale, d = 2.0**bits, 1_000_000
    l2 = min(scale + math.sqrt(d), math.sqrt(scale**2 + d / 4 + scale + math.sqrt(d) / 2))
    l1 = l2 * min(math.sqrt(d), l2)
    event = IntegerEvent(
        "skellam", (8 * scale) ** 2, l2, l1, 2 * l2, 2 * l1, parties=50, dimension=d, releases=50
    )
    found = epsilon([event], 1e-6, ZERO)
    assert found == pytest.approx(published, abs=6e-3)
    assert found > epsilon([GaussianEvent(8.0, 1.0, 50)], 1e-6, ZERO)
    assert epsilon([event], 1e-6, REPLACE) > 2 * found
    assert epsilon([replace(event, kind="discrete_gaussian")], 1e-6, ZERO) <= found


def test_replace_one_is_charged_at_its_own_sensitivity() -> None:
    event = IntegerEvent(
        "skellam", 1e4, 10.0, 50.0, 20.0, 100.0, parties=3, dimension=100, releases=1
    )
    assert integer_curve(event, ZERO) == pytest.approx(skellam_curve(1e4, 10.0, 50.0))
    assert integer_curve(event, REPLACE) == pytest.approx(skellam_curve(1e4, 20.0, 100.0))
    loose = replace(
        event, l1=1e9
    )  # no vector of whole numbers of norm 10 in 100 dimensions has a 1-norm above 100
    assert integer_curve(loose, ZERO) == pytest.approx(skellam_curve(1e4, 10.0, 100.0))


def test_the_sampler_s_error_is_taken_out_of_delta() -> None:
    event = IntegerEvent(
        "skellam",
        1e4,
        10.0,
        50.0,
        20.0,
        100.0,
        parties=3,
        dimension=1000,
        releases=10,
        tv_per_draw=0.0,
    )
    exact = epsilon([event], 1e-6, ZERO)
    rough = replace(event, tv_per_draw=1e-12)
    charged = epsilon([rough], 1e-6, ZERO)
    left = 1e-6 - (1 + math.exp(charged)) * 1e-12 * 3 * 1000 * 10
    assert charged > exact
    assert charged == pytest.approx(epsilon([event], left, ZERO), rel=1e-6)
    assert epsilon([replace(event, tv_per_draw=1e-9)], 1e-6, ZERO) == math.inf
    assert (
        max(skellam(1e4).tv_per_draw, discrete_gaussian(100.0).tv_per_draw)
        <= IntegerEvent.tv_per_draw
    )  # type: ignore[attr-defined]


NOISES = [(1.0, 10.0, None), (2.0, 0.5, None), (1.0, 10.0, 3.0), (4.0, 4.0, 0.7)]
