"""Tables of integer noise against exact values."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate, pairwise
from math import factorial

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy.integer_laws import gaussian_masses, skellam_masses

from secure_fl.privacy.noise_tables import (
    BITS,
    TOTAL_VARIATION,
    AliasTable,
    alias_table,
    gaussian_weights,
    masses,
    skellam_weights,
)

UNIT = Fraction(1, 1 << BITS)
ALLOWED = Fraction(TOTAL_VARIATION)


def variation(law: list[int], exact: Callable[[int], mpmath.mpf]) -> mpmath.mpf:
    """Total variation between a table's law of |X| and P(0), 2 P(1), 2 P(2), … given by `exact`,
    all that the table leaves out included.
    """
    probabilities = [exact(k) * (2 if k else 1) for k in range(len(law))]
    apart = sum(
        abs(mpmath.mpf(mass) / 2**BITS - p) for mass, p in zip(law, probabilities, strict=True)
    )
    return (apart + 1 - sum(probabilities)) / 2


@pytest.mark.parametrize("variance", [2.0**-20, 0.0625, 1.0, 10.3, 517.0])
def test_skellam_is_within_its_total_variation(variance: float) -> None:
    with mpmath.workdps(120):
        mu = mpmath.mpf(variance)
        assert (
            variation(skellam_masses(variance), lambda k: mpmath.exp(-mu) * mpmath.besseli(k, mu))
            < TOTAL_VARIATION
        )


@pytest.mark.parametrize("deviation", [2.0**-10, 0.1, 0.3, 1.0, 7.3, 40.0])
def test_discrete_gaussian_is_within_its_total_variation(deviation: float) -> None:
    with mpmath.workdps(120):
        x = 1 / (2 * mpmath.mpf(deviation) ** 2)
        total = sum(
            (2 if k else 1) * mpmath.exp(-x * k * k) for k in range(int(25 * deviation) + 2)
        )
        assert (
            variation(gaussian_masses(deviation), lambda k: mpmath.exp(-x * k * k) / total)
            < TOTAL_VARIATION
        )


def test_skellam_equals_a_difference_of_poissons_in_fractions() -> None:
    """P(k)/P(0) from Σ_j P(j + k)·P(j), as exact rationals, for mean 3/2 each; e^-3 cancels."""
    mean, law = Fraction(3, 2), skellam_masses(3.0)
    joint = [
        sum(mean ** (2 * j + k) / (factorial(j) * factorial(j + k)) for j in range(60))
        for k in range(len(law))
    ]
    total = 2 * sum(joint) - joint[0]
    apart = sum(
        abs(mass * UNIT - p * (2 if k else 1) / total)
        for k, (mass, p) in enumerate(zip(law, joint, strict=True))
    )
    assert apart / 2 < ALLOWED


@pytest.mark.parametrize("deviation", [4096.0, 1234.567])
def test_large_tables_have_the_right_variance_and_points(deviation: float) -> None:
    """The variance of the truncated law, in integers, and single points of both laws."""
    sk, dg = masses(skellam_weights(Fraction(deviation) ** 2)), gaussian_masses(deviation)
    for law in (sk, dg):
        variance = sum(mass * k * k for k, mass in enumerate(law)) * UNIT
        assert abs(variance / Fraction(deviation) ** 2 - 1) < 1e-25
    with mpmath.workdps(60):
        sigma = mpmath.mpf(deviation)
        for k in (1, int(deviation), int(6 * deviation)):
            skellam_point = 2 * mpmath.exp(-(sigma**2)) * mpmath.besseli(k, sigma**2)
            gaussian_point = 2 * mpmath.npdf(
                k, 0, sigma
            )  # its normaliser is σ√(2π) up to exp(-2π²σ²)
            for law, p in ((sk, skellam_point), (dg, gaussian_point)):
                assert abs(mpmath.mpf(law[k]) / 2**BITS - p) < 2.0**-110


def signed(law: list[int]) -> dict[int, Fraction]:
    return {
        k * sign: mass * UNIT / (2 if k else 1)
        for k, mass in enumerate(law)
        for sign in ((1, -1) if k else (1,))
    }


@pytest.mark.parametrize("shares", [2, 3])
def test_shares_of_skellam_sum_in_law(shares: int) -> None:
    """The convolution of the shares' exact tables is the whole's table, up to the stated variation
    of each.
    """
    whole, share = signed(skellam_masses(6.0)), signed(skellam_masses(6.0 / shares))
    total = {0: Fraction(1)}
    for _ in range(shares):
        summed: dict[int, Fraction] = {}
        for a, p in total.items():
            for b, q in share.items():
                summed[a + b] = summed.get(a + b, Fraction(0)) + p * q
        total = summed
    apart = (
        sum(abs(total.get(k, Fraction(0)) - whole.get(k, Fraction(0))) for k in {*total, *whole})
        / 2
    )
    assert apart < (shares + 1) * ALLOWED


def test_shares_of_discrete_gaussian_do_not() -> None:
    """The same check tells laws apart that are not closed under sums: 2^-20 for σ² = 1, a variation
    that no table may add.
    """
    whole = signed(masses(gaussian_weights(Fraction(1))))
    share = signed(masses(gaussian_weights(Fraction(1, 2))))
    apart = (
        sum(
            abs(sum(share.get(b, 0) * share.get(k - b, 0) for b in share) - p)
            for k, p in whole.items()
        )
        / 2
    )
    assert apart > 2.0**-20


def law_of(table: AliasTable) -> list[int]:
    """What the columns give to each magnitude, in units of 2^-127."""
    full = (1 << BITS) // len(table.alias)
    law = [0] * len(table.alias)
    for column, (high, low, alias) in enumerate(
        zip(table.high.tolist(), table.low.tolist(), table.alias.tolist(), strict=True)
    ):
        kept = (high << 64) + low
        assert 0 <= kept <= full
        law[column] += kept
        law[alias] += full - kept
    return law


@given(st.lists(st.integers(0, 2**64), min_size=1, max_size=70).filter(any))
def test_alias_table_is_exact(weights: list[int]) -> None:
    edges = [(part << BITS) // sum(weights) for part in accumulate(weights, initial=0)]
    parts = [b - a for a, b in pairwise(edges)]
    law = law_of(alias_table(parts))
    assert law[: len(parts)] == parts
    assert not any(law[len(parts) :])


@pytest.mark.parametrize(
    "law",
    [skellam_masses(4096.0**2), gaussian_masses(4096.0)],
    ids=["skellam", "discrete gaussian"],
)
def test_the_table_at_deviation_4096_is_exact(law: list[int]) -> None:
    table = alias_table(law)
    assert len(table.alias) == 1 << 16
    assert law_of(table)[: len(law)] == law


def test_discrete_gaussian_variance_is_its_parameter_or_a_little_less() -> None:
    for deviation in (0.4, 1.0, 3.0):
        variance = sum(mass * k * k for k, mass in enumerate(gaussian_masses(deviation))) * UNIT
        assert variance <= Fraction(deviation) ** 2
        assert variance > Fraction(deviation) ** 2 * (1 - Fraction(1, 10**6)) or deviation < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "law",
    [lambda: skellam_masses(65_536.0**2), lambda: gaussian_masses(65_536.0)],
    ids=["skellam", "discrete gaussian"],
)
def test_the_largest_tables(law: Callable[[], list[int]]) -> None:
    parts = law()
    assert law_of(alias_table(parts))[: len(parts)] == parts
    assert abs(sum(mass * k * k for k, mass in enumerate(parts)) * UNIT / 65_536**2 - 1) < 1e-24
