"""Sums over examples: what is charged is what is sent, and no field or survivor is one too many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import skellam as skellam_law
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.example_sums import EDGE, WIDEST_SHARE, ExampleSum, Shares
from secure_fl.privacy.noise import NoiseSource, NoiseStream

SHARES = Shares(roster=8, n_min=6, colluders=2)


def make(width: int = 5, levels: int = 1000, **changes: Any) -> ExampleSum:
    settings = {"roster": 8, "shares": SHARES, "noise_multiplier": 0.5}
    return ExampleSum(width, levels, **(settings | changes))


def stream(client: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(0).stream(client=client, round=0, purpose="sum")


def parts(rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(rows.sum(0), rows.square().sum(1))]


def test_the_event_says_what_one_example_moves() -> None:
    event = make().event()
    assert (event.l2, event.l2_replace) == (1000, 2000)
    assert (event.variance, event.parties) == (500.0**2, 4)
    assert (event.dimension, event.releases) == (6, 1)
    ones = torch.ones(5) * 1000 / 5**0.5
    assert float(ones.sum()) <= event.l1 <= float(ones.sum()) + 2


@given(levels=st.integers(40, 5000), width=st.integers(1, 9), data=st.data())
def test_no_integers_of_the_norm_charged_are_longer_in_the_other_norm(
    levels: int, width: int, data: st.DataObject
) -> None:
    event = make(width, levels).event()
    limit = int(levels / width**0.5)
    row = data.draw(st.lists(st.integers(-limit, limit), min_size=width, max_size=width))
    assert sum(map(abs, row)) <= event.l1
    assert event.l1_replace == 2 * event.l1


def test_a_vector_longer_than_charged_is_refused_before_it_is_noised() -> None:
    sums = make()
    longest = torch.tensor([[600, 800, 0, 0, 0]])
    assert sums.total(parts(longest), 1).tolist() == [600, 800, 0, 0, 0, 1000]
    with pytest.raises(PrivacyError, match="more than charged"):
        sums.total(parts(longest + 1), 1)


def test_the_count_is_of_places_and_not_of_who_fills_them() -> None:
    """An example that is missing moves its own vector, and nothing else."""
    sums, rows = make(), torch.tensor([[3, 0, 0, 0, 4], [1, 0, 0, 0, 0]])
    both, one = sums.total(parts(rows), 2), sums.total(parts(rows[1:]), 2)
    assert (both - one).tolist() == [3, 0, 0, 0, 4, 0]
    with pytest.raises(PrivacyError, match="more than the client has"):
        sums.total(parts(rows), 1)


def test_shares_of_the_certain_survivors_have_the_variance_charged() -> None:
    sums = make(width=20_000, levels=200)
    zero = torch.zeros(sums.fields, dtype=torch.int64)
    total = sum((sums.noised(zero, stream(client)) for client in range(4)), zero)
    seen = total.double().square().mean() / sums.event().variance
    assert abs(float(seen) - 1) < 5 * (2 / sums.fields) ** 0.5
    law = skellam_law(sums.event().variance / 2, sums.event().variance / 2)
    shares = np.mean(np.abs(total.numpy()) <= 100)
    assert abs(shares - (law.cdf(100) - law.cdf(-101))) < 5 * (0.25 / sums.fields) ** 0.5
    assert sums.deviation(4) == pytest.approx(100)
    assert sums.deviation(8) == pytest.approx(100 * 2**0.5)


def test_a_hundred_clients_of_ten_thousand_examples_overflow_no_field() -> None:
    """At every client's largest sum, with more noise than is ever seen, in one field."""
    shares = Shares(roster=100, n_min=75)
    sums = ExampleSum.fitted(131_328, 2**14, shares, 0.6)
    assert sums.levels == 2**14
    assert sums.most_examples >= 10_000
    assert 100 * sums.bound + sums.noise_margin <= EDGE
    assert sums.most_examples * sums.levels <= sums.bound
    assert ExampleSum.fitted(131_328, 2**14, shares, 60.0).levels < 2**14


def test_more_examples_than_a_field_holds_are_refused() -> None:
    sums = make(levels=2**30, shares=None, roster=64)
    assert sums.most_examples == EDGE // 64 // 2**30
    sums.total([], sums.most_examples)
    with pytest.raises(PrivacyError, match="overflow"):
        sums.total([], sums.most_examples + 1)


@pytest.mark.parametrize("survivors", [5, 9])
def test_sums_of_fewer_than_the_noise_was_made_for_are_not_opened(survivors: int) -> None:
    with pytest.raises(PrivacyError, match="must not be opened"):
        make().opened(torch.zeros(6, dtype=torch.int64), survivors)


def test_what_is_opened_is_the_mean_in_units_of_the_bound() -> None:
    said = make().opened(torch.tensor([500, -250, 0, 0, 0, 2000]), 6)
    assert said.mean.tolist() == [0.25, -0.125, 0, 0, 0]
    assert said.examples == 2
    assert said.deviation == pytest.approx(0.5 * (6 / 4) ** 0.5 / 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"levels": 0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": float("inf")},
        {"levels": 31},
        {"levels": 2 * 2 * WIDEST_SHARE + 9},
        {"levels": EDGE, "shares": None},
    ],
)
def test_settings_that_protect_nothing_or_overflow_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError):
        make(**changes)


@pytest.mark.parametrize("changes", [{"colluders": 0}, {"colluders": 6}, {"n_min": 9}])
def test_shares_without_an_honest_client_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(PrivacyError):
        Shares(**({"roster": 8, "n_min": 6, "colluders": 2} | changes))


def test_without_noise_there_is_nothing_to_charge_or_to_add() -> None:
    bare = make(shares=None)
    with pytest.raises(PrivacyError, match="no noise"):
        bare.event()
    with pytest.raises(PrivacyError, match="no noise"):
        bare.noised(torch.zeros(6, dtype=torch.int64), stream())
