"""Statistical checks with a stated false-alarm rate, and what they are to catch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALARM = 1e-6
"""Chance that a check fails although its claim is true. Streams are seeded, so a check that passed
once passes always.
"""


def assert_z(value: float, deviation: float, checks: int = 1) -> None:
    """`value` is normal with mean 0 and `deviation`; one of `checks` that share the alarm rate."""
    assert 2 * stats.norm.sf(abs(value) / deviation) > ALARM / checks, (
        f"{value / deviation:.1f} deviations from 0"
    )


def assert_moments(
    draws: NDArray[np.floating | np.integer], variance: float, kurtosis: float
) -> None:
    """Mean 0 and `variance`, given the law's kurtosis E x⁴/σ⁴."""
    x = draws.astype(np.float64) / variance**0.5
    assert_z(x.mean(), len(x) ** -0.5, 2)
    assert_z((x**2).mean() - 1, ((kurtosis - 1) / len(x)) ** 0.5, 2)


def assert_frequencies(counts: NDArray[np.integer], probabilities: NDArray[np.floating]) -> None:
    """Pearson's chi-square; cells with fewer than 10 expected counts are joined into one."""
    expected = probabilities * counts.sum()
    rare = expected < 10
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 1e-9 * counts.sum():
        assert counts[-1] == 0
        counts, expected = counts[:-1], expected[:-1]
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > ALARM


def assert_unrelated_words(streams: Mapping[object, NDArray[np.uint64]]) -> None:
    """No word of one stream in another (by chance: pairs · n²/2^64), and half of the bits differ in
    every pair.
    """
    pairs = list(combinations(streams, 2))
    for one, other in pairs:
        a, b = streams[one], streams[other]
        assert not np.isin(a, b).any(), f"{one} and {other} share words"
        differ = int(np.unpackbits((a ^ b).view(np.uint8)).sum())
        assert_z(differ - 32 * len(a), (16 * len(a)) ** 0.5, len(pairs))


def assert_uncorrelated(draws: Mapping[object, NDArray[np.floating]]) -> None:
    """No correlation between two sets of draws with mean 0 and finite variance."""
    pairs = list(combinations(draws, 2))
    for one, other in pairs:
        a, b = draws[one], draws[other]
        assert_z(float((a * b).mean()), float(a.std() * b.std()) / len(a) ** 0.5, len(pairs))
