"""How often a bound is above the truth, and the test of noise right or wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from audit.canary_scores import DELTA, Game, gaussian_game, leaky_answers, mu_of
from scipy import stats

from secure_fl.audit.bounds import (
    Bound,
    Looks,
    gaussian_shift_bound,
    guessed,
    noise_shift_bound,
    one_run_bound,
    one_run_f_bound,
)

METHODS: dict[str, Callable[[Game], Bound]] = {
    "one run": lambda game: one_run_bound(guessed(game.scores, game.coins), DELTA),
    "f-DP": lambda game: one_run_f_bound(
        guessed(game.scores, game.coins), DELTA, family="approximate"
    ),
    "Gaussian DP": lambda game: one_run_f_bound(guessed(game.scores, game.coins), DELTA),
    "Gaussian shift": lambda game: gaussian_shift_bound(game.scores, game.coins, DELTA),
    "noise shift": lambda game: noise_shift_bound(game.scores, game.coins, DELTA),
}


def too_often(wrong: int, trials: int, stated: float) -> bool:
    """Whether so many would be seen with probability below 1e-4 if the stated rate were true."""
    return bool(stats.binom.sf(wrong - 1, trials, stated) < 1e-4)


def wrong(method: str, epsilon: float, canaries: int, trials: int) -> int:
    rng, mu = np.random.default_rng(hash((epsilon, canaries)) % 2**32), mu_of(epsilon)
    games = (gaussian_game(rng, canaries, mu) for _ in range(trials))
    return sum(METHODS[method](game).epsilon > epsilon + 1e-6 for game in games)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_seldom_above_the_truth(method: str) -> None:
    assert not too_often(wrong(method, 4.4, 200, 60), 60, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epsilon", [10.0, 4.4, 2.0])
@pytest.mark.parametrize(("canaries", "trials"), [(200, 1000), (1000, 500), (5000, 200)])
def test_coverage(method: str, epsilon: float, canaries: int, trials: int) -> None:
    assert not too_often(wrong(method, epsilon, canaries, trials), trials, 0.05)


@pytest.mark.parametrize("family", ["one run", "f-DP"])
@pytest.mark.parametrize("delta", [1e-3, 2e-2])
def test_bounds_hold_for_the_mechanism_that_is_guessed_best(family: str, delta: float) -> None:
    rng, epsilon, trials, above = np.random.default_rng(5), 1.0, 300, 0
    for _ in range(trials):
        game = leaky_answers(rng, 200, epsilon, delta)
        outcomes = guessed(game.scores, game.coins, [10, 50, 200])
        found = (
            one_run_bound(outcomes, delta, 0.9)
            if family == "one run"
            else one_run_f_bound(outcomes, delta, 0.9, "approximate")
        )
        above += found.epsilon > epsilon
    assert not too_often(above, trials, 0.1)


def test_stopping_at_the_best_look_is_seldom_wrong() -> None:
    rng, epsilon, trials, above = np.random.default_rng(6), 1.0, 150, 0
    for _ in range(trials):
        looks, found = Looks(5, 1e-3, 0.8, "approximate"), 0.0
        for _ in range(5):
            game = leaky_answers(rng, 60, epsilon, 1e-3)
            found = looks.add(game.scores, game.coins).epsilon
        above += found > epsilon
    assert not too_often(above, trials, 0.2)


def alarms(canaries: int, mu: float, noise: float, trials: int, seed: int, mean: float = 1) -> int:
    """Of trials with the shift times `mean` and noise times `noise`, how many alarm."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(trials):
        game = gaussian_game(rng, canaries, mean * mu, noise)
        bound = noise_shift_bound(game.scores, game.coins, DELTA, claimed=(mu, 1.0))
        found += int(bound.details["alarm"])
    return found


@pytest.mark.parametrize("mu", [0.01, 0.5, 2.0])
def test_halved_noise_is_caught_by_a_thousand_canaries(mu: float) -> None:
    assert alarms(1000, mu, 0.5, 200, seed=7) >= 198


def test_noise_a_seventh_too_small_is_caught_too() -> None:
    assert alarms(1000, 0.5, 0.857, 100, seed=8) >= 90


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_a_shift_half_too_large_is_caught(mu: float) -> None:
    assert alarms(1000, mu, 1.0, 100, seed=9, mean=1.5) >= 60


def test_honest_noise_seldom_alarms() -> None:
    assert alarms(200, 0.5, 1.0, 1000, seed=10) <= 7


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.5, 2.0])
@pytest.mark.parametrize("canaries", [40, 200, 1000])
def test_honest_noise_alarms_at_most_once_in_a_thousand(mu: float, canaries: int) -> None:
    assert not too_often(alarms(canaries, mu, 1.0, 4000, seed=11), 4000, 1e-3)


@pytest.mark.parametrize("canaries", [12, 200])
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_probabilities_of_the_shift_are_those_of_a_non_central_t(canaries: int, mu: float) -> None:
    game = gaussian_game(np.random.default_rng(12), canaries, mu)
    details = noise_shift_bound(game.scores, game.coins, DELTA, claimed=(mu, 1.0)).details
    inverse = (1 / game.coins.sum() + 1 / (~game.coins).sum()) ** 0.5
    law = stats.nct(canaries - 2, mu / inverse)
    assert details["p_mu"] == pytest.approx(law.sf(details["mu"] / inverse), rel=1e-4)
    squares = (canaries - 2) * details["deviation"] ** 2
    assert details["p_deviation"] == pytest.approx(stats.chi2(canaries - 2).cdf(squares))
