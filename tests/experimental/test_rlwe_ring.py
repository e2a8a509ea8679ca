"""Products in the pad's ring are exact, bytes hold fifty bits a coefficient, short coefficients are
distributed as they should be.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, chisquare

from secure_fl.errors import SecureSumError
from secure_fl.experimental import rlwe_ring
from secure_fl.experimental.rlwe_ring import (
    DEGREE,
    WIDEST_FACTOR,
    WIDEST_SHORT,
    from_bytes,
    products,
    to_bytes,
)

Q = 2**50
ALARM = 1e-6
LOWEST = np.iinfo(np.int64).min


def schoolbook(element: list[int], factor: list[int], kind: type = np.int64) -> list[int]:
    """Shifts and sums: a coefficient that passes the end comes back with the other sign. In int64
    exact modulo 2^64, as `object` anyhow.
    """
    total = np.zeros(DEGREE, kind)
    base = np.array(element, kind)
    for shift, coefficient in enumerate(factor):
        if coefficient:
            total += coefficient * np.concatenate([-base[DEGREE - shift :], base[: DEGREE - shift]])
    return [int(value) % Q for value in total]


def test_the_oracle_agrees_with_unbounded_integers() -> None:
    element, factor = extreme(HALVES, 5), extreme((WIDEST_FACTOR, -WIDEST_FACTOR), 6)
    assert schoolbook(element, factor) == schoolbook(element, factor, object)


def extreme(values: tuple[int, ...], seed: int) -> list[int]:
    return [
        int(value) for value in np.random.default_rng(seed).choice(np.array(values, object), DEGREE)
    ]


HALVES = (2**24 - 1, 2**24, 2**25 - 1, 2**25 * (2**24 - 1) + 2**24 - 1, 2**49 - 1, 2**49, Q - 1, 0)
"""Residues whose centred halves are as long as they can be."""


@pytest.mark.parametrize(
    "residues",
    [(HALVES[3],), (2**49 + 2**24,), HALVES, (Q - 1,), (2**49,), tuple(range(7, 7 * DEGREE, 7))],
)
@pytest.mark.parametrize(
    "short", [(32,), (-32,), (32, -32), (8000, -8000), (WIDEST_FACTOR,), (-WIDEST_FACTOR,), (0, 1)]
)
def test_products_are_exact_at_the_worst_coefficients(
    residues: tuple[int, ...], short: tuple[int, ...]
) -> None:
    element, factor = extreme(residues, 1), extreme(short, 2)
    found = products(np.array([element], np.uint64), np.array(factor, np.int64))
    assert found[0].tolist() == schoolbook(element, factor)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.sampled_from([1, 32, 300, 8000]))
def test_products_are_exact_at_random(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    elements, factor = (
        rng.integers(0, Q, (2, DEGREE), np.uint64),
        rng.integers(-most, most + 1, DEGREE),
    )
    found = products(elements, factor)
    assert [row.tolist() for row in found] == [
        schoolbook(row.tolist(), factor.tolist()) for row in elements
    ]


def test_rounding_has_the_room_that_the_bound_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors as long as one product takes, aligned with the element so that nothing cancels: off
    by 0.19 at most, 0.25 would be refused.
    """
    worst, plain = 0.0, rlwe_ring.np.rint

    def watched(values: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal worst
        worst = max(worst, float(np.abs(values - plain(values)).max()))
        return plain(values)

    monkeypatch.setattr(rlwe_ring.np, "rint", watched)
    rng = np.random.default_rng(3)
    for most in (32, 181, WIDEST_FACTOR):
        elements = rng.choice(np.array([2**24 - 1, 2**49 + 2**24], np.uint64), (4, DEGREE))
        products(elements, rng.choice(np.array([-most, most]), DEGREE))
        products(elements, np.full(DEGREE, most))
    assert 0 < worst < 0.19


def test_twists_are_as_close_as_the_bound_takes_them_for() -> None:
    with mpmath.workprec(120):
        off = max(
            abs(mpmath.mpc(complex(twist)) - mpmath.expjpi(mpmath.mpf(k) / DEGREE))
            for k, twist in enumerate(rlwe_ring._twist())
        )
    assert float(off) < 4 * 2.0**-53
    assert 193 * 2.0**-53 * 2.0**30 * rlwe_ring._LONGEST < 0.19


def test_factors_that_are_not_short_are_refused() -> None:
    element = np.zeros((1, DEGREE), np.uint64)
    for factor in (
        np.full(DEGREE, WIDEST_FACTOR + 1),
        np.full(DEGREE, LOWEST),
        np.zeros(DEGREE - 1, np.int64),
        np.zeros(DEGREE),
    ):
        with pytest.raises(SecureSumError, match="short ring element"):
            products(element, factor)


@given(seed=st.integers(0, 1000), elements=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_bytes_hold_fifty_bits_a_coefficient(seed: int, elements: int) -> None:
    words = np.random.default_rng(seed).integers(0, Q, (elements, DEGREE), np.uint64)
    body = to_bytes(words)
    assert len(body) == elements * 12_800
    assert np.array_equal(from_bytes(body, elements), words)
    with pytest.raises(SecureSumError, match="ring elements"):
        from_bytes(body + b"\0", elements)


def test_short_coefficients_are_centred_binomial() -> None:
    drawn = rlwe_ring.short_elements(b"k" * 32, 0, 60).reshape(-1)
    assert np.abs(drawn).max() <= WIDEST_SHORT
    values = np.arange(-16, 17)
    found = [int((drawn == value).sum()) for value in values]
    expected = binom.pmf(values + 32, 64, 0.5) * len(drawn)
    rest = len(drawn) - sum(found)
    assert chisquare([*found, rest], [*expected, len(drawn) - expected.sum()]).pvalue > ALARM
    assert not np.array_equal(drawn[:DEGREE], rlwe_ring.short_elements(b"k" * 32, 1, 1)[0])
