"""The grid: never overflows but with the stated probability, never longer than its bound, refused where it cannot be safe."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from secure_fl.errors import SecureSumError
from secure_fl.odds import hypergeometric_tail_log2
from secure_fl.secure_sum.codec import Codec
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.tails import noise_bound, noise_tail_log2

EDGE = 2**19 - 1


def clipped(seed: int, width: int, clip: float) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=width)
    return (vector * clip / np.linalg.norm(vector) * (1 - 1e-7)).astype(np.float32)


@given(
    clients=st.integers(1, 3000),
    multiplier=st.sampled_from([0.0, 0.3, 1.0, 8.0]),
    clip=st.sampled_from([1e-3, 0.7, 1.0, 250.0]),
    width=st.integers(1, 10**7),
    pools=st.integers(1, 16),
)
def test_the_overflow_rule_holds_and_the_next_grid_breaks_it(clients: int, multiplier: float, clip: float, width: int, pools: int) -> None:
    codec = Codec.derive(clients=clients, width=width, pools=pools, clip=clip, noise_multiplier=multiplier)
    assert codec.fields == pools * (width + 1)
    assert codec.noise_deviation == pytest.approx(multiplier * codec.bound)
    assert codec.clients * codec.bound + codec.noise_margin <= EDGE
    assert codec.wrap_log2 <= -40
    more = codec.bound + 1
    assert clients * more + noise_bound(multiplier * more, codec.fields, -40) > EDGE - 1
    assert codec.norm_bound is not None
    assert codec.norm_bound == floor(Fraction(codec.scale) * Fraction(clip)) <= codec.bound


@pytest.mark.parametrize(("clients", "multiplier", "bits"), [(16, 1, 14.3), (50, 8, 12.1), (256, 1, 11.0)])
def test_the_designs_grids(clients: int, multiplier: float, bits: float) -> None:
    codec = Codec.derive(clients=clients, width=1_000_000, pools=4, clip=1.0, noise_multiplier=multiplier)
    assert np.log2(codec.scale) == pytest.approx(bits, abs=0.1)
    assert codec.noise_margin / codec.noise_deviation == pytest.approx(9.34, abs=0.01)


@pytest.mark.parametrize("deviation", [0.7, 3.0, 40.0])
def test_the_tail_bound_lies_above_skellams_and_gaussians(deviation: float) -> None:
    """The exact Skellam tail is below the bound at every point, and at large x above a Gaussian one: κ must come from Skellam's."""
    mean = deviation**2
    for times in (1, 2, 4, 6):
        x = int(times * deviation) + 1
        exact = 2 * stats.skellam.sf(x - 1, mean / 2, mean / 2)
        assert 2.0 ** noise_tail_log2(x, deviation) >= exact
        assert 2.0 ** noise_tail_log2(x, deviation) >= 2 * stats.norm.sf(x / deviation)
    assert noise_bound(0.7, 10**6, -40) > 0.7 * sqrt(2 * np.log(2) * 61)


def test_a_margin_taken_from_too_few_deviations_would_fail() -> None:
    """The rule has teeth: with κ = 4 instead of 9 a million fields wrap around almost surely."""
    codec = Codec.derive(clients=10, width=10**6, clip=1.0, noise_multiplier=8.0)
    assert codec.fields * 2 * stats.norm.sf(4) > 1
    assert np.log2(codec.fields) + noise_tail_log2(4 * codec.noise_deviation, codec.noise_deviation) > 0


def test_noise_given_in_steps_leaves_the_rest_to_the_clients() -> None:
    codec = Codec.derive(clients=10, width=1000, limit=0.5, noise_deviation=1000.0)
    assert codec.bound == (EDGE - int(np.ceil(noise_bound(1000.0, 1001, -40)))) // 10
    assert codec.norm_bound is None
    assert Codec.derive(clients=10, width=1000, limit=0.5).wrap_log2 == float("-inf")


@pytest.mark.parametrize("layout", [FieldLayout(), FieldLayout.words()])
@pytest.mark.parametrize("seed", range(4))
def test_full_sums_at_the_clamp_are_exact(layout: FieldLayout, seed: int) -> None:
    """All clients at ±B in every coordinate, the worst case the rule allows."""
    codec = Codec.derive(clients=37, width=11, limit=1.0, layout=layout)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], 11) if seed else np.ones(11)
    total = sum((codec.encode((signs * 1e3).astype(np.float32)).astype(object) for _ in range(37)), np.zeros(codec.layout.slots(11), object))
    slots = np.array([int(value) % layout.modulus for value in total], np.uint64)
    opened = codec.unpack(slots, 11)
    assert np.array_equal(opened, 37 * codec.quantise((signs * 1e3).astype(np.float32)))
    assert np.abs(opened).max() >= EDGE - 37 - 37 * 1
    codec.check_sum(opened, 37)


@given(seed=st.integers(0, 10**6), width=st.integers(1, 300), clip=st.sampled_from([1e-4, 1.0, 33.3]), clients=st.sampled_from([1, 7, 1000]))
def test_truncation_shortens_every_coordinate_and_the_vector(seed: int, width: int, clip: float, clients: int) -> None:
    codec = Codec.derive(clients=clients, width=width, clip=clip)
    vector = clipped(seed, width, clip)
    values = codec.quantise(vector)
    for x, q in zip(vector.tolist(), values.tolist(), strict=True):
        exact = Fraction(x) * Fraction(codec.scale)
        assert q == int(exact) or np.linalg.norm(vector.astype(np.float64)) > clip
    assert sum(q * q for q in values.tolist()) <= (codec.norm_bound or 0) ** 2
    assert np.array_equal(codec.unpack(codec.encode(vector), width), values)


@pytest.mark.parametrize("width", [1, 5, 40_000, 200_001])
def test_norm_above_the_clip_by_float_error_is_scaled_down(width: int) -> None:
    codec = Codec.derive(clients=4, width=width, clip=1.0)
    vector = clipped(1, width, 1.0) * np.float32(1.0005)
    values = codec.quantise(vector)
    assert int(values @ values) <= (codec.norm_bound or 0) ** 2
    assert np.array_equal(codec.unpack(codec.encode(vector), width), values)


def test_an_update_that_was_not_clipped_is_refused() -> None:
    codec = Codec.derive(clients=4, width=50, clip=1.0)
    for convert in (codec.quantise, codec.encode):
        with pytest.raises(SecureSumError, match="not clipped"):
            convert(clipped(1, 50, 1.01))
        for bad in (np.nan, np.inf):
            vector = clipped(1, 50, 1.0)
            vector[7] = bad
            with pytest.raises(SecureSumError, match="not finite"):
                convert(vector)
        for shape in (np.zeros(49, np.float32), np.zeros(50), np.zeros((5, 10), np.float32)):
            with pytest.raises(SecureSumError, match="float32"):
                convert(shape)


def test_limit_clamps_and_gives_a_finer_grid() -> None:
    wide, narrow = (Codec.derive(clients=8, width=4, clip=1.0, limit=limit) for limit in (None, 0.01))
    assert narrow.scale > 90 * wide.scale
    assert narrow.quantise(np.array([0.5, -0.5, 0.001, 0], np.float32)).tolist()[:2] == [narrow.bound, -narrow.bound]


def test_wide_fields_check_their_norm_in_integers() -> None:
    layout = FieldLayout(bits=24, fields_per_slot=2, modulus=2**64)
    codec = Codec.derive(clients=1, width=70_000, clip=1.0, layout=layout)
    vector = clipped(3, 70_000, 1.0)
    assert np.array_equal(codec.unpack(codec.encode(vector), 70_000), codec.quantise(vector))


def test_conditional_rounding_is_unbiased_and_within_its_bound() -> None:
    d = 20_000
    codec, plain = (Codec.derive(clients=400, width=d, clip=1.0, rounding=rounding) for rounding in ("conditional", "zero"))
    radius = codec.scale * 1.0
    likely = radius**2 + d / 4 + radius + sqrt(d) / 2
    assert codec.norm_bound == ceil(sqrt(min((radius + sqrt(d)) ** 2, likely))) > (plain.norm_bound or 0)
    vector = clipped(5, d, 1.0)
    draws = np.stack([codec.quantise(vector, key=bytes([i]) * 32) for i in range(60)])
    assert (np.square(draws).sum(axis=1) <= (codec.norm_bound or 0) ** 2).all()
    exact = vector.astype(np.float64) * codec.scale
    assert np.abs(draws - exact).max() < 1
    assert abs((draws.mean(axis=0) - exact).mean()) < 5 * 0.5 / sqrt(60 * d)
    assert codec.share_kept(vector, draws[0]) > 0.98 > plain.share_kept(vector, plain.quantise(vector))
    assert np.array_equal(codec.quantise(vector, key=bytes(32)), codec.quantise(vector, key=bytes(32)))
    assert not np.array_equal(codec.quantise(vector), codec.quantise(vector))


def test_conditional_falls_back_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    conditional, plain = (Codec.derive(clients=400, width=500, clip=1.0, rounding=rounding) for rounding in ("conditional", "zero"))
    monkeypatch.setattr(Codec, "_norm_square", lambda self: -1)
    vector = clipped(2, 500, 1.0)
    assert np.array_equal(conditional.quantise(vector), plain.quantise(vector))


@pytest.mark.parametrize(
    "settings",
    [
        {"clients": 0},
        {"width": 0},
        {"pools": 0},
        {"clip": None},
        {"clip": -1.0},
        {"clip": float("nan")},
        {"limit": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": 1.0, "noise_deviation": 2.0},
        {"noise_multiplier": 1.0, "clip": None, "limit": 1.0},
        {"noise_deviation": float("inf")},
        {"rounding": "nearest"},
        {"rounding": "conditional", "clip": None, "limit": 1.0},
        {"clients": 2**16},
        {"noise_deviation": 80_000.0},
        {"noise_multiplier": 1e4},
    ],
)
def test_unsafe_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SecureSumError) as caught:
        Codec.derive(**{"clients": 8, "width": 100, "clip": 1.0, **settings})  # type: ignore[arg-type]
    assert caught.value.remedy


def test_the_grid_shows_itself() -> None:
    shown = Codec.derive(clients=16, width=10**6, pools=4, clip=1.0, noise_multiplier=1.0).describe()
    assert shown["fields a round"] == 4_000_004
    assert str(shown["wrap-around probability a round, at most"]).startswith("2^-4")
    assert 20_000 < int(str(shown["steps from 0 to the clamp"])) < 21_000
    assert shown["L2 bound in steps"] == shown["steps from 0 to the clamp"]
    assert shown["bytes a field, masked"] == 4.0


def test_impossible_sums_are_refused() -> None:
    codec = Codec.derive(clients=10, width=5, clip=1.0)
    codec.check_sum(np.full(5, 3 * codec.bound), 3)
    for values, survivors in ((np.full(5, 3 * codec.bound + 1), 3), (np.full(5, -3 * codec.bound - 1), 3), (np.zeros(5, np.int64), 11)):
        with pytest.raises(SecureSumError):
            codec.check_sum(values, survivors)


def test_sum_with_noise_of_the_stated_deviation_stays_inside() -> None:
    codec = Codec.derive(clients=6, width=20_000, clip=1.0, noise_multiplier=2.0)
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(0, codec.noise_deviation, 20_000)).astype(np.int64)
    codec.check_sum(6 * codec.quantise(clipped(0, 20_000, 1.0)) + noise, 6)


@pytest.mark.parametrize(("total", "marked", "draws", "least"), [(99, 20, 30, 15), (10, 3, 9, 3), (10, 3, 5, 4), (50, 50, 7, 7), (8, 0, 3, 1)])
def test_tail_of_draws_without_replacement(total: int, marked: int, draws: int, least: int) -> None:
    exact = stats.hypergeom(total, marked, draws).sf(least - 1)
    assert 2.0 ** hypergeometric_tail_log2(total, marked, draws, least) == pytest.approx(exact, rel=1e-9, abs=1e-300)
