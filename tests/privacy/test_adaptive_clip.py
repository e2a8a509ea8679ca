"""The adaptive bound."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.errors import PrivacyError
from secure_fl.privacy.adaptive_clip import QuantileBound, bit_noise_for
from secure_fl.privacy.client_level import ClientLevel, norm_of
from secure_fl.privacy.noise import NoiseSource


def test_the_bound_finds_the_quantile_through_noise() -> None:
    """Norms spread evenly over [0, 10]: the bound settles at their 0.7-quantile although every bit
    is noised.
    """
    level = ClientLevel(
        pools=1,
        pooled=1,
        bound=0.1,
        levels=256,
        noise_multiplier=1.0,
        roster=40,
        n_min=40,
        bit_noise=2.0,
    )
    adaptive = QuantileBound(quantile=0.7, rate=0.3)
    source = NoiseSource.for_tests(1)
    bound = 0.1
    path = []
    for round_number in range(60):
        total = level.absent()
        for client in range(40):
            update = torch.tensor([10 * (client + 0.5) / 40])
            mine = level.blocks(level.encode(update, bound), 0, inside=norm_of(update) <= bound)
            total = total + level.noised(
                mine, source.stream(client=client, round=round_number, purpose="share")
            )
        inside = level.open_head(total.head, 40).inside
        assert inside is not None
        bound = adaptive.moved(bound, inside)
        path.append(bound)
    assert 6.0 < sum(path[-30:]) / 30 < 8.0
    assert path[0] < 0.2


def test_the_bit_is_charged_as_half_a_client() -> None:
    level = ClientLevel(
        pools=1,
        pooled=1,
        bound=1.0,
        levels=10_000,
        noise_multiplier=1.0,
        roster=9,
        n_min=9,
        bit_noise=2.0,
    )
    event = level.event(1)
    assert event.l2**2 / event.variance == pytest.approx(1 + (0.5 / 2.0) ** 2, rel=1e-3)
    assert event.l2_replace**2 / event.variance == pytest.approx(4 + (1 / 2.0) ** 2, rel=1e-3)


@given(st.floats(1e-6, 1e6), st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0.01, 1))
def test_a_round_moves_the_bound_a_little_and_within_its_range(
    bound: float, inside: float, quantile: float, rate: float
) -> None:
    adaptive = QuantileBound(quantile, rate)
    moved = adaptive.moved(bound, inside)
    assert 1e-6 <= moved <= 1e6
    assert abs(log(moved / bound)) <= rate + 1e-9
    assert adaptive.moved(1.0, quantile) == pytest.approx(1.0)
    assert QuantileBound(0.5, 0.2).moved(1.0, 1.0) == pytest.approx(exp(-0.1))


@pytest.mark.parametrize(
    "settings",
    [{"quantile": 0.0}, {"rate": 0.0}, {"smallest": 0.0}, {"smallest": 2.0, "largest": 1.0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError):
        QuantileBound(**settings)


def test_an_unclamped_share_is_refused() -> None:
    for inside in (-0.1, 1.1, float("nan")):
        with pytest.raises(PrivacyError, match="inside"):
            QuantileBound().moved(1.0, inside)
    assert bit_noise_for(200) == 10
    assert bit_noise_for(3) == 1
