"""Tests of noise say rarely so of what is as claimed, and always of what is not."""

from __future__ import annotations

import numpy as np
import pytest

from secure_fl.audit import noise_tests

TRIES = 200


def noise(seed: int, rows: int = 12, width: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


def drawn(seed: int, rate: float = 0.3, steps: int = 20, count: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).random((steps, count)) < rate


NOISE = ("too_little", "uneven", "repeated", "within", "another_law")


def coins(x: np.ndarray, rate: float = 0.3) -> dict[str, float]:
    units, count = x.sum(1).astype(float), x.shape[1]
    return {
        "often": noise_tests.drawn_too_often(units, count, rate),
        "sizes": noise_tests.sizes(units, count, rate),
        "again": noise_tests.again(x, rate),
    }


@pytest.mark.parametrize("level", [0.2, 0.02])
def test_false_alarms_are_no_more_frequent_than_the_level(level: float) -> None:
    found = dict.fromkeys((*NOISE, "often", "sizes", "again"), 0)
    for seed in range(TRIES):
        for name in NOISE:
            found[name] += getattr(noise_tests, name)(noise(seed)) <= level
        for name, p in coins(drawn(seed)).items():
            found[name] += p <= level
    most = TRIES * level + 4 * (TRIES * level) ** 0.5
    assert all(count <= most for count in found.values()), found


def test_every_departure_is_found_by_its_own_test() -> None:
    honest = noise(0)
    assert noise_tests.too_little(0.8 * honest) < 1e-9
    assert noise_tests.too_little(np.zeros_like(honest)) == 0
    one = honest.copy()
    one[3] *= 1.5
    assert noise_tests.uneven(one) < 1e-9
    again = honest.copy()
    again[7] = -3 * again[2]
    assert noise_tests.repeated(again) < 1e-9
    assert noise_tests.within(np.tile(honest[:, :100], 2)) < 1e-9
    flat = np.random.default_rng(1).uniform(-(3**0.5), 3**0.5, size=(40, 200))
    assert noise_tests.another_law(flat) < 1e-5
    assert noise_tests.another_law(np.zeros_like(honest)) == 0


def test_every_departure_of_coins_is_found() -> None:
    x = drawn(0)
    assert coins(drawn(0, rate=0.4))["often"] < 1e-9
    assert coins(np.repeat(x[:1], len(x), 0))["again"] < 1e-9
    fixed = np.argsort(np.random.default_rng(0).random((20, 200)), 1) < 60
    assert coins(fixed)["sizes"] < 1e-6  # batches of one size are no Poisson samples
    assert coins(np.repeat(drawn(0, count=1), 200, 1))["sizes"] < 1e-9


def test_a_correlation_has_the_closed_form_of_student() -> None:
    """Of two vectors alone: the same p as the t test of a correlation."""
    from scipy.stats import pearsonr

    rng = np.random.default_rng(3)
    # centred in one dimension more, a correlation through the origin is Pearson's
    one, other = rng.normal(size=(2, 50))
    basis = np.linalg.qr(np.column_stack([np.ones(51), rng.normal(size=(51, 50))]))[0][:, 1:]
    p = noise_tests.repeated(np.stack([one, other]))
    assert p == pytest.approx(pearsonr(basis @ one, basis @ other).pvalue, rel=1e-6)
