"""The one tail bound: above every law that it stands for, below the looser one, and with teeth."""

from __future__ import annotations

from math import ceil, log, log2, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from secure_fl.secure_sum.noise_bounds import largest_noise, noise_tail_log2

DEVIATIONS = st.floats(0.01, 2.0**17)
FIELDS = st.integers(1, 10**9)


@pytest.mark.parametrize("deviation", [0.7, 3.0, 40.0])
def test_the_tail_bound_lies_above_skellams_and_gaussians(deviation: float) -> None:
    """At large x Skellam's exact tail lies above a Gaussian one, so margins must come from it."""
    mean = deviation**2
    for times in (1, 2, 4, 6):
        x = int(times * deviation) + 1
        exact = 2 * stats.skellam.sf(x - 1, mean / 2, mean / 2)
        assert 2.0 ** noise_tail_log2(x, deviation) >= exact
        assert 2.0 ** noise_tail_log2(x, deviation) >= 2 * stats.norm.sf(x / deviation)
    assert largest_noise(0.7, 10**6) > 0.7 * sqrt(2 * log(2) * 61)


@pytest.mark.parametrize("deviation", [0.2, 0.5, 1.0, 7.3])
@pytest.mark.parametrize("clients", [1, 3])
def test_sums_of_discrete_gaussians_stay_below_it_too(deviation: float, clients: int) -> None:
    """Exactly, by convolution."""
    reach = int(12 * deviation) + 3
    law = [stats.norm.pdf(k / deviation) for k in range(-reach, reach + 1)]
    law = [mass / sum(law) for mass in law]
    total = [1.0]
    for _ in range(clients):
        total = [
            sum(total[i - j] * law[j] for j in range(len(law)) if 0 <= i - j < len(total))
            for i in range(len(total) + len(law) - 1)
        ]
    middle = len(total) // 2
    for x in range(1, int(6 * deviation * sqrt(clients)) + 2):
        exact = 2 * sum(total[middle + x :])
        assert exact <= 2.0 ** noise_tail_log2(x, deviation * sqrt(clients)) * (1 + 1e-9)


@given(DEVIATIONS, FIELDS)
def test_the_margin_is_the_smallest_that_the_bound_allows(deviation: float, fields: int) -> None:
    margin = largest_noise(deviation, fields)
    assert log2(fields) + noise_tail_log2(margin + 1, deviation) <= -40
    assert log2(fields) + noise_tail_log2(margin, deviation) > -40
    assert largest_noise(0.0, fields) == 0


@given(DEVIATIONS, FIELDS)
def test_the_margin_is_never_wider_than_bernsteins(deviation: float, fields: int) -> None:
    """P(|N| ≥ t) ≤ 2·exp(−t²/(2v + 2t/3)) is the looser of two inequalities that were in use."""
    exponent = 40 * log(2) + log(2 * fields)
    bernstein = ceil(exponent / 3 + sqrt(exponent**2 / 9 + 2 * exponent * deviation**2))
    assert 0 <= bernstein - largest_noise(deviation, fields) < exponent


def test_a_margin_of_too_few_deviations_would_fail() -> None:
    """With 4 deviations instead of 9.34, one of four million fields is passed almost surely."""
    fields, deviation = 4 * 10**6, 10_000.0
    assert fields * 2 * stats.norm.sf(4) > 1
    assert log2(fields) + noise_tail_log2(4 * deviation, deviation) > 0
    assert largest_noise(deviation, fields) / deviation == pytest.approx(9.34, abs=0.01)
