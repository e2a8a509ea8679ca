"""Scores from shadows where the best attack's area is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from secure_fl.audit.attacks.likelihoods import decoded, lira, rmia
from secure_fl.audit.attacks.rates import area
from secure_fl.errors import AuditError

EXAMPLES, SHIFT = 2000, 1.5
BEST = float(norm.cdf(SHIFT / math.sqrt(2)))
"""Area of the likelihood ratio of N(m + SHIFT, 1) against N(m, 1), m known."""


def halves(shadows: int, rng: np.random.Generator) -> np.ndarray:
    rows = [rng.random(EXAMPLES) < 0.5 for _ in range(shadows // 2)]
    return np.stack([each for row in rows for each in (row, ~row)])


def figures(rng: np.random.Generator, inside: np.ndarray, means: np.ndarray) -> np.ndarray:
    return means + SHIFT * inside + rng.normal(size=inside.shape)


def played(shadows: int, spread: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each example is in, LiRA's scores, and the bare figures."""
    rng = np.random.default_rng(1)
    means = spread * rng.normal(size=EXAMPLES)  # examples differ by more than membership moves them
    inside, truth = halves(shadows, rng), rng.random(EXAMPLES) < 0.5
    of_shadows, target = figures(rng, inside, means), figures(rng, truth, means)
    return truth, lira(target[:, None], of_shadows[..., None], inside), target


def area_of(truth: np.ndarray, scores: np.ndarray) -> float:
    return area(scores[truth], scores[~truth]).value


def test_lira_with_many_shadows_is_as_good_as_the_likelihood_ratio() -> None:
    truth, scores, bare = played(shadows=64)
    assert area_of(truth, scores) == pytest.approx(BEST, abs=0.02)
    assert area_of(truth, bare) < 0.65


def test_lira_with_four_shadows_loses_what_their_means_are_uncertain_by() -> None:
    truth, scores, _ = played(shadows=4)
    expected = float(norm.cdf(SHIFT / math.sqrt(2 * (1 + 1 / 4))))
    assert area_of(truth, scores) == pytest.approx(expected, abs=0.03)


def test_lira_weighs_figures_by_what_they_say() -> None:
    rng, inside = np.random.default_rng(2), halves(32, np.random.default_rng(3))
    truth, none = rng.random(EXAMPLES) < 0.5, np.zeros(EXAMPLES)

    def both(where: np.ndarray) -> np.ndarray:
        telling = figures(rng, where, none)
        return np.stack([telling, 50 * rng.normal(size=where.shape)], -1)  # the other is noise

    scores = lira(both(truth), both(inside), inside)
    assert area_of(truth, scores) == pytest.approx(BEST, abs=0.03)


def test_lira_refuses_an_example_that_one_shadow_alone_left_out() -> None:
    inside = np.array([[True, True], [True, False], [True, False], [False, True]])
    with pytest.raises(AuditError):
        lira(np.zeros((2, 1)), np.zeros((4, 2, 1)), inside)


def test_rmia_is_as_good_as_the_likelihood_ratio_where_means_are_known() -> None:
    """log p moves by a tenth of normal noise: the mean of p over shadows is then that of log p."""
    rng = np.random.default_rng(4)
    means, others = rng.normal(size=EXAMPLES), rng.normal(size=500)
    inside, truth = halves(64, rng), rng.random(EXAMPLES) < 0.5
    out = np.zeros((64, 500), dtype=bool)
    scores = rmia(
        figures(rng, truth, 10 * means) / 10,
        figures(rng, inside, 10 * means) / 10,
        figures(rng, out[0], 10 * others) / 10,
        figures(rng, out, 10 * others) / 10,
    )
    assert set(np.unique(scores * 500).round(6) % 1) == {0.0}
    assert area_of(truth, scores) == pytest.approx(BEST, abs=0.02)


def test_a_sum_is_decoded_and_noise_hides_it() -> None:
    rng = np.random.default_rng(5)
    rows, coins = rng.normal(size=(60, 400)) * rng.uniform(0.1, 9, (60, 1)), rng.random(60) < 0.5
    signs = np.where(coins, 1.0, -1.0)
    assert ((decoded(rows.T @ signs, rows) > 0) == coins).all()
    noised = rows.T @ signs + 1e4 * rng.normal(size=400)
    assert abs(((decoded(noised, rows) > 0) == coins).mean() - 0.5) < 0.25
