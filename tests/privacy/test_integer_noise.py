"""Draws of integer noise against the tables that they are drawn from. False-alarm rate of
statistical tests: 1e-6 each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from privacy.integer_laws import gaussian_masses, skellam_masses
from privacy.randomness import (
    assert_frequencies,
    assert_moments,
    assert_uncorrelated,
    assert_unrelated_words,
)
from scipy import stats

from secure_fl.errors import PrivacyError
from secure_fl.privacy.integer_noise import IntegerNoise, TabulatedNoise, discrete_gaussian, skellam
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.noise_tables import BITS, AliasTable

COUNT = 1 << 18


def stream(purpose: str = "test") -> NoiseStream:
    return NoiseSource.for_tests(0).stream(client=0, round=0, purpose=purpose)


class Planted(NoiseStream):
    """A stream whose words are given."""

    def __init__(self, *words: int) -> None:
        super().__init__(bytes(32), private=False)
        self.left = list(words)

    def words(self, count: int) -> NDArray[np.uint64]:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, np.uint64)


def test_a_word_is_read_as_column_sign_and_fraction() -> None:
    """Four columns: 61 bits of fraction; the column's own number below `high`, its alias above."""
    table = AliasTable(
        np.array([1, 5, 0, 1 << 61], np.uint64), np.zeros(4, np.uint64), np.array([3, 2, 1, 0])
    )
    words = [
        fraction << 3 | minus << 2 | column
        for fraction, minus, column in [
            (0, 0, 1),
            (4, 1, 1),
            (6, 1, 1),
            (7, 0, 2),
            (0, 1, 3),
            (9, 1, 0),
        ]
    ]
    assert TabulatedNoise(1.0, table).sample(Planted(*words), 6).tolist() == [1, -1, -2, 1, -3, -3]


def test_a_tie_is_settled_by_a_second_word() -> None:
    table = AliasTable(
        np.array([5, 5], np.uint64), np.array([1000, 0], np.uint64), np.array([1, 0])
    )
    words = [5 << 2 | 0, 5 << 2 | 0, 5 << 2 | 1, 4 << 2 | 1]
    drawn = Planted(*words, 999, 1000, 0)
    assert TabulatedNoise(1.0, table).sample(drawn, 4).tolist() == [0, 1, 0, 1]
    assert not drawn.left


LAWS = {
    "skellam": (skellam(9.0), skellam_masses(9.0)),
    "discrete gaussian": (discrete_gaussian(3.0), gaussian_masses(3.0)),
    "small discrete gaussian": (discrete_gaussian(0.5), gaussian_masses(0.5)),
}


def frequencies(draws: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """Counts of -reach … reach."""
    return np.bincount(draws + reach, minlength=2 * reach + 1)


def probabilities(law: list[int]) -> NDArray[np.float64]:
    half = np.array([mass / 2.0**BITS / (2 if k else 1) for k, mass in enumerate(law)])
    return np.concatenate((half[:0:-1], half))


@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_table(name: str) -> None:
    noise, law = LAWS[name]
    assert_frequencies(frequencies(noise.sample(stream(), COUNT), len(law) - 1), probabilities(law))


def test_skellam_agrees_with_scipy() -> None:
    draws, reach = skellam(9.0).sample(stream(), COUNT), 70
    assert_frequencies(
        frequencies(draws, reach), stats.skellam.pmf(np.arange(-reach, reach + 1), 4.5, 4.5)
    )


def test_discrete_gaussian_agrees_with_opendp() -> None:
    opendp = pytest.importorskip("opendp.prelude")
    opendp.enable_features("contrib")
    count, reach = 20_000, 60
    peer = opendp.m.make_gaussian(
        opendp.vector_domain(opendp.atom_domain(T="i64")), opendp.l2_distance(T="f64"), scale=3.0
    )([0] * count)
    ours = frequencies(discrete_gaussian(3.0).sample(stream(), 20 * count), reach)
    theirs = frequencies(np.array(peer), reach)
    kept = ours >= 200
    assert (
        stats.chi2_contingency([ours[kept], theirs[kept]]).pvalue > 1e-9
    )  # OpenDP's draws differ in every run


@pytest.mark.parametrize("name", ["skellam", "discrete gaussian"])
def test_large_deviation_in_cells_moments_and_tails(name: str) -> None:
    """At deviation 4096: the counts in 128 cells, the moments, and the mass beyond 4 deviations."""
    noise, law = (
        (skellam(4096.0**2), skellam_masses(4096.0**2))
        if name == "skellam"
        else (discrete_gaussian(4096.0), gaussian_masses(4096.0))
    )
    draws = noise.sample(stream(), 1 << 20)
    pmf = probabilities(law)
    reach = len(law) - 1
    cells = np.minimum((np.cumsum(pmf) * 128).astype(int), 127)
    cells[: reach - 4 * 4096], cells[reach + 4 * 4096 + 1 :] = 128, 129
    assert_frequencies(
        np.bincount(cells[draws + reach], minlength=130), np.bincount(cells, pmf, minlength=130)
    )
    assert_moments(draws, noise.variance, 3.0)


def test_two_shares_drawn_apart_have_the_summed_variance() -> None:
    source, half = NoiseSource.for_tests(1), skellam(8.0)
    one, other = (
        half.sample(source.stream(client=client, round=0, purpose="share"), COUNT)
        for client in (0, 1)
    )
    assert_frequencies(frequencies(one + other, 80), stats.skellam.pmf(np.arange(-80, 81), 8, 8))
    assert_uncorrelated({"one": one.astype(float), "other": other.astype(float)})


def test_draws_of_one_stream_are_unrelated() -> None:
    draws = discrete_gaussian(4096.0).sample(stream(), COUNT).astype(float)
    assert_uncorrelated({lag: draws[lag : lag + COUNT - 128] for lag in (0, 1, 2, 127)})
    assert_uncorrelated({"sign": np.sign(draws), "size": np.abs(draws) - np.abs(draws).mean()})


def sign_from_the_column(words: NDArray[np.uint64], noise: TabulatedNoise) -> NDArray[np.int64]:
    """Broken: the sign's bit is one of the column's."""
    columns = np.uint64(len(noise.table.alias) - 1)
    size = np.abs(noise.sample(Planted(*words.tolist()), len(words)))
    return np.where(words & columns & np.uint64(1), -size, size)


def test_checks_catch_wrong_laws() -> None:
    noise, law = LAWS["discrete gaussian"]
    assert isinstance(noise, TabulatedNoise)
    words, reach = stream().words(COUNT), len(law) - 1
    rounded = stream().gaussian((COUNT,), 0.5).round().long().numpy()
    for wrong, its in (
        (sign_from_the_column(words, noise), law),
        (skellam(9.0).sample(stream(), COUNT), law),
        (rounded, gaussian_masses(0.5)),
    ):
        within = max(reach, int(np.abs(wrong).max()))
        expected = np.zeros(2 * within + 1)
        expected[within - len(its) + 1 : within + len(its)] = probabilities(its)
        with pytest.raises(AssertionError):
            assert_frequencies(frequencies(wrong, within), expected)


def test_checks_catch_one_stream_for_two_clients() -> None:
    noise = skellam(8.0)
    one, other = (
        noise.sample(
            NoiseSource.for_tests(1).stream(client=0, round=0, purpose="share"), 4096
        ).astype(float)
        for _ in range(2)
    )
    with pytest.raises(AssertionError):
        assert_uncorrelated({"one": one, "other": other})
    with pytest.raises(AssertionError):
        assert_unrelated_words({"one": stream().words(64), "other": stream().words(64)})


# What is promised and refused


def test_attributes() -> None:
    for noise, variance in ((skellam(7.5), 7.5), (discrete_gaussian(1.5), 2.25)):
        assert noise.variance == variance
        assert noise.tv_per_draw == 2.0**-99 <= 2.0**-60


@pytest.mark.parametrize("count", [0, 1, (1 << 15) + 1])
def test_any_count(count: int) -> None:
    draws = skellam(100.0).sample(stream(), count)
    assert draws.shape == (count,)
    assert draws.dtype == np.int64


@pytest.mark.parametrize(
    "make",
    [lambda x: skellam(x**2 if x > 0 else x), discrete_gaussian],
    ids=["skellam", "discrete gaussian"],
)
@pytest.mark.parametrize("deviation", [70_000.0, float("inf"), 0.0, -3.0, float("nan"), 1e-4])
def test_deviations_without_a_table_are_refused(
    make: Callable[[float], IntegerNoise], deviation: float
) -> None:
    with pytest.raises(PrivacyError, match="smaller scale" if deviation > 1 else "larger scale"):
        make(deviation)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(PrivacyError, match="count"):
        skellam(4.0).sample(stream(), -1)


def test_a_table_is_built_once() -> None:
    one, other = skellam(4.0), skellam(4)
    assert isinstance(one, TabulatedNoise)
    assert isinstance(other, TabulatedNoise)
    assert one.table is other.table
