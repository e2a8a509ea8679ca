"""Rates against scikit-learn and scipy; ceilings against mechanisms that reach them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve

from secure_fl.audit.attacks.rates import (
    allowed_guesses,
    allowed_true_positives,
    area,
    lowest_share,
    share,
    true_positives,
)
from secure_fl.audit.bounds import epsilon_of_gaussian
from secure_fl.errors import AuditError


def two_kinds(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.7, 1, 130), rng.normal(0, 1, 210)
    return (inside.round(1), outside.round(1)) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_areas_are_scikit_learns(seed: int, ties: bool) -> None:
    inside, outside = two_kinds(seed, ties)
    scores, truth = np.concatenate([inside, outside]), np.arange(340) < 130
    assert area(inside, outside).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.3])
def test_true_positives_are_scikit_learns(rate: float, ties: bool) -> None:
    inside, outside = two_kinds(5, ties)
    scores, truth = np.concatenate([inside, outside]), np.arange(340) < 130
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    found = true_positives(inside, outside, rate)
    assert found.value == pytest.approx(true[false <= rate].max(), abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("right", "trials"), [(0, 7), (7, 7), (3, 40), (399, 400)])
def test_shares_have_scipys_exact_intervals(right: int, trials: int) -> None:
    theirs = binomtest(right, trials).proportion_ci(0.95, "exact")
    assert share(right, trials)[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    one_sided = binomtest(right, trials, alternative="greater").proportion_ci(0.999, "exact")
    assert lowest_share(right, trials, 1e-3) == pytest.approx(one_sided.low, abs=1e-9)


def test_an_areas_interval_holds_the_true_area() -> None:
    rng, held, true = np.random.default_rng(0), 0, float(norm.cdf(1 / math.sqrt(2)))
    for _ in range(400):
        found = area(rng.normal(1, 1, 60), rng.normal(0, 1, 80))
        held += found.low <= true <= found.high
    assert 0.92 <= held / 400 <= 0.98
    perfect = area([1.0, 2, 3], [-1.0, -2, -3, -4])
    assert perfect.value == perfect.high == 1
    assert perfect.low < 0.5


def test_what_is_allowed_is_what_randomised_response_reaches() -> None:
    epsilon, choices = 1.3, 4
    tells = math.exp(epsilon) / (math.exp(epsilon) + choices - 1)
    assert allowed_guesses(epsilon, 0.0, choices) == pytest.approx(tells)
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert allowed_true_positives(epsilon, 0.0, 1 - truth) == pytest.approx(truth)
    assert allowed_guesses(0.0, 0.0, 3) == pytest.approx(1 / 3)
    assert allowed_guesses(1e4, 0.0, 3) == allowed_true_positives(1e4, 0.0, 0.01) == 1


@pytest.mark.parametrize("false_positives", [1e-4, 0.01, 0.2, 0.9])
def test_the_gaussian_mechanism_stays_below_what_is_allowed(false_positives: float) -> None:
    mu = 1.1
    reached = float(norm.cdf(norm.ppf(false_positives) + mu))
    limits = [
        allowed_true_positives(epsilon_of_gaussian(mu, delta), delta, false_positives)
        for delta in (1e-9, 1e-5, 1e-3, 0.05, 0.2, 0.35)
    ]
    assert reached <= min(limits)
    assert min(limits) < 1


def test_what_are_no_scores_is_refused() -> None:
    for inside in ([1.0], [1.0, math.nan], [[1.0, 2.0]]):
        with pytest.raises(AuditError):
            area(inside, [0.0, 1.0])
    with pytest.raises(AuditError):
        share(3, 2)
