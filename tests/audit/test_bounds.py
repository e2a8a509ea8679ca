"""Bounds on ε against closed forms, exact tails and what jax-privacy computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from audit.canary_scores import DELTA, gaussian_game, mu_of
from dp_accounting import get_epsilon_gaussian
from scipy import stats

from secure_fl.audit.bounds import (
    Bound,
    Looks,
    Outcome,
    epsilon_of_gaussian,
    gaussian_delta,
    gaussian_shift_bound,
    guessed,
    noise_shift_bound,
    one_run_bound,
    one_run_f_bound,
    one_shot_estimate,
)
from secure_fl.audit.bounds.gaussian import two_normals_delta
from secure_fl.audit.bounds.gaussian_shift import at_most
from secure_fl.audit.bounds.guesses import schedule
from secure_fl.audit.bounds.one_run import p_value
from secure_fl.audit.bounds.one_run_f import approximate_inverse, gaussian_inverse
from secure_fl.audit.bounds.one_shot import cosines
from secure_fl.errors import AuditError

JAX_PRIVACY_2_0_0 = [
    # canaries, guesses, right, error, δ, one run, one run against Gaussian trade-offs
    (1000, 100, 96, 0.05, 1e-5, 2.31515, 3.56879),
    (1000, 1000, 700, 0.05, 1e-5, 0.73174, 1.37198),
    (5000, 40, 40, 0.05, 1e-5, 2.40591, 3.07806),
    (200, 50, 45, 0.01, 1e-4, 1.09223, 1.52949),
    (1000, 500, 260, 0.05, 1e-5, 0.0, 0.0),
]
"""Its `_epsilon_one_run` and `_epsilon_one_run_fdp`; its source of August 2026 gives the same."""


@pytest.mark.parametrize("row", JAX_PRIVACY_2_0_0, ids=lambda row: f"{row[2]} of {row[1]}")
def test_one_run_bounds_are_those_of_jax_privacy(row: tuple[float, ...]) -> None:
    canaries, guesses, right, error, delta, plain, gaussian = row
    outcomes = [Outcome(int(canaries), int(guesses), int(right))]
    assert one_run_bound(outcomes, delta, 1 - error).epsilon == pytest.approx(plain, abs=2e-5)
    found = one_run_f_bound(outcomes, delta, 1 - error)
    assert found.epsilon == pytest.approx(gaussian, abs=2e-5)
    assert "the trade-off is that of the Gaussian mechanism" in found.assumptions


def test_without_delta_the_p_value_is_the_binomial_tail() -> None:
    for epsilon in (0.0, 0.5, 3.0):
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        expected = sum(stats.binom.pmf(k, 50, q) for k in range(40, 51))
        assert p_value(Outcome(80, 50, 40), epsilon, 0.0) == pytest.approx(expected, rel=1e-9)
    assert one_run_bound([Outcome(200, 200, 120)], 0).epsilon == pytest.approx(0.15907, abs=2e-5)


def test_delta_costs_what_the_formula_says() -> None:
    outcome, epsilon, delta = Outcome(100, 20, 18), 1.0, 1e-3
    law = stats.binom(20, math.e / (1 + math.e))
    beta = law.sf(17)
    alpha = max((law.sf(17 - i) - beta) / i for i in range(1, 19))
    assert p_value(outcome, epsilon, delta) == pytest.approx(beta + 2 * 100 * delta * alpha)


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_the_gaussian_curve_is_the_exact_one(mu: float, delta: float) -> None:
    found = epsilon_of_gaussian(mu, delta)
    assert found == pytest.approx(get_epsilon_gaussian(1 / mu, delta), abs=1e-6)
    assert found == 0 or gaussian_delta(mu, found) == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize(("one", "other"), [((1, 1), (0, 1)), ((1, 2), (0, 1)), ((0.3, 1), (0, 2))])
def test_two_normals_are_told_apart_as_integration_says(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    x = np.linspace(-40, 40, 800_001)
    p, q = stats.norm(*one).pdf(x), stats.norm(*other).pdf(x)
    for epsilon in (0.0, 0.5, 2.0):
        expected = np.maximum(p - math.exp(epsilon) * q, 0).sum() * (x[1] - x[0])
        assert two_normals_delta(one, other, epsilon) == pytest.approx(expected, abs=1e-6)


def test_limits_of_rates_are_exact_binomial_tails() -> None:
    upper = at_most(np.array([0, 3, 50]), 50, 0.01)
    assert stats.binom.cdf(0, 50, upper[0]) == pytest.approx(0.01)
    assert stats.binom.cdf(3, 50, upper[1]) == pytest.approx(0.01)
    assert upper[2] == 1


def test_inverses_of_trade_offs_undo_them() -> None:
    assert gaussian_inverse(1.0)(stats.norm.cdf(1.0)) == pytest.approx(0.5)
    inverse = approximate_inverse(1.0, 0.1)
    for level in (0.0, 0.2, 0.45, 0.7, 0.9):
        power = min(math.e * level + 0.1, 1 - (1 - 0.1 - level) / math.e, 1.0)
        assert inverse(power) == pytest.approx(level, abs=1e-12)


def test_guesses_are_the_surest_on_both_sides() -> None:
    scores = np.array([5.0, 1.0, -3.0, 4.0, -4.0, 0.0])
    coins = np.array([True, False, False, False, True, True])
    assert guessed(scores, coins, [1, 2, 4]) == (
        Outcome(6, 1, 1),
        Outcome(6, 2, 1),
        Outcome(6, 4, 2),
    )
    assert schedule(1000) == (1000, 500, 250, 125, 62, 31, 15)


def test_coins_turned_round_are_guessed_wrongly() -> None:
    game = gaussian_game(np.random.default_rng(0), 1000, 2.0)
    right = [each.right for each in guessed(game.scores, game.coins)]
    turned = [each.right for each in guessed(game.scores, ~game.coins)]
    assert all(
        one + other == each.guesses
        for one, other, each in zip(right, turned, guessed(game.scores, game.coins), strict=True)
    )
    assert gaussian_shift_bound(game.scores, ~game.coins, DELTA).epsilon == 0
    assert noise_shift_bound(game.scores, ~game.coins, DELTA).epsilon == 0


def test_looks_keep_the_largest_and_are_no_more_than_planned() -> None:
    rng, looks = np.random.default_rng(1), Looks(3, DELTA)
    found: list[Bound] = []
    for _ in range(3):
        game = gaussian_game(rng, 400, 1.5)
        found.append(looks.add(game.scores, game.coins))
    assert found[0].epsilon <= found[1].epsilon <= found[2].epsilon
    assert found[2].epsilon > found[0].epsilon
    with pytest.raises(AuditError, match="all looks are spent"):
        looks.add(game.scores, game.coins)


def test_one_look_is_the_plain_bound_and_more_looks_cost() -> None:
    game = gaussian_game(np.random.default_rng(2), 1000, 1.5)
    plain = one_run_f_bound(guessed(game.scores, game.coins), DELTA).epsilon
    assert Looks(1, DELTA).add(game.scores, game.coins).epsilon == pytest.approx(plain)
    assert 0 < Looks(20, DELTA).add(game.scores, game.coins).epsilon < plain


def test_the_one_shot_estimate_is_near_and_says_that_it_is_no_bound() -> None:
    rng, dimension, mu = np.random.default_rng(3), 4000, 1.0
    rows = rng.normal(size=(600, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    coins = rng.random(600) < 0.5
    released = rows[coins].sum(0) + rng.normal(size=dimension) / mu
    found = one_shot_estimate(cosines(released, rows), coins, DELTA)
    assert found.kind == "estimate"
    assert not found.refutes(0.0)
    assert 0.5 * epsilon_of_gaussian(mu, DELTA) < found.epsilon < 2 * epsilon_of_gaussian(mu, DELTA)


@pytest.mark.parametrize("epsilon", [10.0, 4.4, 2.0])
def test_bounds_see_most_of_epsilon_with_many_canaries(epsilon: float) -> None:
    game = gaussian_game(np.random.default_rng(4), 5000, mu_of(epsilon))
    assert noise_shift_bound(game.scores, game.coins, DELTA).epsilon > 0.75 * epsilon
    assert gaussian_shift_bound(game.scores, game.coins, DELTA).epsilon > 0.5 * epsilon


@pytest.mark.parametrize(
    ("scores", "coins", "field"),
    [
        ([1.0, 2.0], [True], "included"),
        ([1.0, 2.0, 3.0, math.nan], [True, True, False, False], "scores"),
        ([1.0, 2.0, 3.0], [True, True, True], "included"),
        ([1.0, 2.0, 3.0], [1, 0, 1], "included"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    scores: list[float], coins: list[object], field: str
) -> None:
    with pytest.raises(AuditError) as refused:
        gaussian_shift_bound(scores, coins, DELTA)
    assert refused.value.field == field


def test_values_outside_their_range_are_refused() -> None:
    outcomes = [Outcome(10, 5, 4)]
    for call, field in (
        (lambda: one_run_bound(outcomes, 2.0), "delta"),
        (lambda: one_run_bound(outcomes, 0.0, 1.0), "confidence"),
        (lambda: one_run_bound([], 0.0), "outcomes"),
        (lambda: one_run_f_bound(outcomes, 0.1, family="other"), "family"),  # type: ignore[arg-type]
        (lambda: Outcome(10, 5, 6), "outcome"),
        (lambda: Looks(0, 0.1), "looks"),
    ):
        with pytest.raises(AuditError) as refused:
            call()
        assert refused.value.field == field
