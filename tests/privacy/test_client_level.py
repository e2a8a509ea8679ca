"""Client level: the integers never pass what is charged, and nothing is opened or divided by
a secret.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import skellam as skellam_law
from torch import Tensor

from secure_fl.errors import PrivacyError, SecureSumError
from secure_fl.privacy.client_level import FIELD_LIMIT, ClientLevel, norm_of
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.pool_counts import count_noise_for, false_pass_probability
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.layout import FieldLayout


def make(**changes: Any) -> ClientLevel:
    settings: dict[str, Any] = {
        "pools": 3,
        "pooled": 5,
        "bound": 2.0,
        "levels": 1000,
        "noise_multiplier": 1.0,
        "roster": 8,
        "n_min": 6,
    }
    return ClientLevel(**{**settings, **changes})


def stream(purpose: str, client: int = 0, seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=client, round=0, purpose=purpose)


def flat(blocks: Blocks) -> Tensor:
    return torch.cat([blocks.head, blocks.shared, blocks.pools.flatten()])


ODD = st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-30, 1.0, -1.0, 3.4e38, -3.4e38, float("nan"), float("inf")]
)
VALUES = st.lists(st.one_of(st.floats(-5, 5, width=32), ODD), min_size=7, max_size=7).map(
    torch.tensor
)
CLIENTS = st.tuples(VALUES, st.integers(0, 2), st.booleans())


def contribution(level: ClientLevel, client: tuple[Tensor, int, bool], bound: float) -> Tensor:
    update, pool, inside = client
    encoded = level.encode(update, bound, stream=stream("rounding"))
    asked = inside if level.bit_noise else None
    return flat(level.blocks(encoded, pool % level.pools, inside=asked))


VARIANTS = [
    {"pooled": 7},
    {"pooled": 7, "rounding": "conditional"},
    {"pooled": 5, "shared": 2},
    {"pooled": 5, "shared": 2, "bit_noise": 2.0},
    {"pooled": 7, "pools": 1, "bit_noise": 2.0},
    {"pooled": 7, "bit_noise": 1.5, "count_noise": 0.2, "levels": 40, "rounding": "conditional"},
]


@pytest.mark.parametrize("changes", VARIANTS)
@settings(max_examples=60)
@given(one=CLIENTS, other=CLIENTS, bound=st.sampled_from([1e-3, 1.0, 50.0]))
def test_no_client_moves_the_integers_further_than_charged(
    changes: dict[str, Any], one: Any, other: Any, bound: float
) -> None:
    level = make(**changes)
    event = level.event(1)
    x, y = contribution(level, one, bound), contribution(level, other, bound)
    for present in (x, y):
        assert float(present.square().sum()) <= event.l2**2
        assert float(present.abs().sum()) <= event.l1
    assert float((x - y).square().sum()) <= event.l2_replace**2
    assert float((x - y).abs().sum()) <= event.l1_replace
    assert level.fields == event.dimension == len(x)


def test_the_charge_is_attained() -> None:
    """The bounds are not loose: opposite updates in one pool, and a change of pool, reach them."""
    level = make(pooled=5, count_noise=0.3)
    x = torch.tensor([2.0, 0, 0, 0, 0])
    one, opposite = flat(level.blocks(level.encode(x), 0)), flat(level.blocks(level.encode(-x), 0))
    moved = flat(level.blocks(level.encode(x), 1))
    event, unit = level.event(1), level.count_unit
    assert float(one.square().sum()) == pytest.approx(event.l2**2)
    stays, moves = float((one - opposite).square().sum()), float((one - moved).square().sum())
    assert stays == 4 * 1000**2
    assert moves == 2 * (1000**2 + unit**2)
    assert event.l2_replace == pytest.approx(sqrt(max(stays, moves)))


def test_a_shared_part_that_turns_round_while_the_pool_changes_attains_the_charge() -> None:
    level = make(shared=1, count_noise=0.3)
    x = torch.tensor([2.0, 0, 0, 0, 0, 0])
    one, other = flat(level.blocks(level.encode(x), 0)), flat(level.blocks(level.encode(-x), 1))
    assert float((one - other).square().sum()) == pytest.approx(level.event(1).l2_replace ** 2)


def test_the_charge_is_the_issues_formula_in_noise_units() -> None:
    level = make(levels=10_000, count_noise=0.9, accepted_false_pass=0.4, rounding="toward_zero")
    event = level.event(1)
    u, c = 1.0, 1 / 0.9
    assert event.l2**2 / event.variance == pytest.approx(u**2 + c**2, rel=1e-3)
    moved = max(4 * u**2, 2 * (u**2 + c**2))
    assert event.l2_replace**2 / event.variance == pytest.approx(moved, rel=1e-3)
    plain = make(levels=10_000, pools=1).event(4)
    assert (plain.l2, plain.releases, plain.parties) == (pytest.approx(10_000), 4, 5)
    assert plain.l1 == pytest.approx(sqrt(5) * 10_000)


@given(
    VALUES,
    st.sampled_from([1, 7, 1000, FIELD_LIMIT]),
    st.sampled_from([5e-324, 1e-6, 0.5, 3.0, 1e300]),
)
def test_rounding_toward_zero_never_lengthens(update: Tensor, levels: int, bound: float) -> None:
    level = make(
        pooled=7,
        levels=levels,
        noise_multiplier=max(1.0, 20 / levels) if levels < 10_000 else 0.1,
        pools=1,
    )
    integers = level.encode(update, bound)
    assert int(integers.square().sum()) <= levels**2
    if not bool(update.isfinite().all()):
        assert not bool(integers.any())
    else:
        x = update.double() / max(norm_of(update), bound) * levels
        assert bool((integers.abs() <= x.abs() + 1e-6).all())
        assert float((integers - x).abs().max()) < 1 + 1e-6


def test_conditional_rounding_is_unbiased_and_bounded() -> None:
    level = make(pooled=200, pools=1, levels=40, rounding="conditional")
    x = torch.full((200,), 0.3 * 2.0 / sqrt(200) / 3)
    coins = stream("coins")
    rounded = torch.stack([level.encode(x, stream=coins) for _ in range(2000)]).double()
    assert float(rounded.square().sum(1).max()) <= level.square_bound
    expected, deviation = float(x[0]) * 40 / 2, 0.5 / sqrt(2000 * 200)
    assert abs(float(rounded.mean()) - expected) < 5 * deviation
    assert level.square_bound > 40**2
    assert not bool(
        replace(level, rounding="toward_zero").encode(x).any()
    )  # what conditional rounding is for


def test_shares_of_the_honest_add_up_to_the_charged_variance() -> None:
    """Five of six survivors are honest: their noise alone has the variance charged (false alarm
    1e-6 by the chi-square's normal limit).
    """
    for kind in ("skellam", "discrete_gaussian"):
        level = make(pooled=20_000, pools=1, kind=kind, levels=300)
        assert level.honest == 5
        source = NoiseSource.for_tests(3)
        shares = [
            level.share(source.stream(client=i, round=0, purpose=kind), 20_000)
            for i in range(level.honest)
        ]
        total = torch.stack(shares).sum(0).double()
        assert abs(float(total.mean())) < 5 * sqrt(level.variance / 20_000)
        assert abs(float(total.square().mean()) / level.event(1).variance - 1) < 5 * sqrt(
            2 / 20_000
        )


def test_every_field_of_every_pool_is_noised() -> None:
    level = make(pools=4, pooled=50, shared=20, bit_noise=1.0)
    noised = level.noised(level.absent(), stream("noise"))
    assert flat(noised).numel() == level.fields == 4 + 1 + 20 + 4 * 50
    assert float((flat(noised) != 0).double().mean()) > 0.98
    again = level.noised(level.absent(), stream("noise", client=1))
    assert not torch.equal(flat(noised), flat(again))


def test_means_are_exact_without_noise() -> None:
    level = make(
        pools=3, pooled=4, shared=2, levels=2**16, noise_multiplier=0.5, n_min=5, bit_noise=1.0
    )
    updates = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) / 10
    choices = [0, 0, 1, 0, 1, 2]
    total = level.absent()
    for update, pool in zip(updates, choices, strict=True):
        total = total + level.blocks(level.encode(update), pool, inside=pool != 2)
    opened = level.open_head(total.head, 6)
    assert opened.counts.tolist() == [3, 2, 1]
    assert opened.passing.tolist() == [True, True, False]
    assert opened.inside == pytest.approx(5 / 6)
    shared, pools = level.open_pools(total, opened)
    step = level.bound / level.levels
    assert float((shared - updates[:, :2].double().mean(0)).abs().max()) < step
    for pool in (0, 1):
        mine = updates[[c == pool for c in choices], 2:].double().mean(0)
        assert float((pools[pool] - mine).abs().max()) < step
    assert not bool(pools[2].any())


def test_a_small_pool_is_divided_by_the_minimum_and_a_closed_one_is_not_read() -> None:
    level = make(pools=2, pooled=1, minimum=3, n_min=5)
    sums = Blocks(
        torch.tensor([3 * level.count_unit, 3 * level.count_unit - 1]),
        torch.zeros(0).long(),
        torch.tensor([[600], [777]]),
    )
    opened = level.open_head(sums.head, 6)
    assert opened.passing.tolist() == [True, False]
    means = level.open_pools(sums, opened)[1]
    assert means.flatten().tolist() == pytest.approx([600 * 2.0 / 1000 / 3, 0.0])


@pytest.mark.parametrize("survivors", [0, 5, 9])
def test_a_round_with_too_few_or_too_many_survivors_is_not_opened(survivors: int) -> None:
    level = make()
    head = level.absent().head
    with pytest.raises(PrivacyError, match="must not be opened"):
        level.open_head(head, survivors)
    opened = replace(level.open_head(head, 6), survivors=survivors)
    with pytest.raises(PrivacyError, match="must not be opened"):
        level.open_pools(level.absent(), opened)


@pytest.mark.parametrize(("minimum", "accepted"), [(2, 0.05), (3, 0.05), (5, 0.01)])
def test_a_pool_of_one_passes_as_seldom_as_calibrated(minimum: int, accepted: float) -> None:
    """Exactly, by the Skellam law of the whole roster's noise."""
    level = make(minimum=minimum, accepted_false_pass=accepted, levels=60)
    mu = level.variance * level.roster / level.honest
    exact = float(skellam_law.sf((minimum - 1) * level.count_unit - 1, mu / 2, mu / 2))
    assert exact <= accepted + 3e-4
    assert exact > accepted * 0.9  # not more noise-free than asked
    assert level.false_pass == pytest.approx(exact, abs=3e-4)
    assert (
        float(skellam_law.sf(minimum * level.count_unit - 1, mu / 2, mu / 2)) < exact
    )  # a pool of none


def test_a_pool_of_one_passes_as_seldom_in_rounds_as_run() -> None:
    level = make(pools=400, pooled=1, levels=100)
    source = NoiseSource.for_tests(5)
    total = level.absent()
    for client in range(level.roster):
        total = level.noised(total, source.stream(client=client, round=0, purpose="noise"))
    passed = int(
        level.open_head(total.head + level.count_unit, level.roster).passing.sum()
    )  # every pool has one member
    assert abs(passed - 400 * level.false_pass) < 5 * sqrt(400 * 0.05 * 0.95)


def test_more_false_passes_must_be_accepted_by_name() -> None:
    with pytest.raises(PrivacyError, match="accepted_false_pass"):
        make(count_noise=5.0)
    assert make(count_noise=5.0, accepted_false_pass=0.5).false_pass > 0.4
    with pytest.raises(PrivacyError, match="minimum"):
        count_noise_for(1)
    assert false_pass_probability(count_noise_for(3), 3) == pytest.approx(0.05)
    assert false_pass_probability(1.0, 2, members=0) == pytest.approx(float(norm.sf(2)))


def test_fitted_levels_fill_the_field_and_no_more() -> None:
    level = make(pools=4, pooled=1_000_000, levels=1000, roster=16, n_min=12, minimum=3).fitted()
    assert FIELD_LIMIT == FieldLayout().edge == FieldLayout.words().edge
    assert level.largest <= FIELD_LIMIT < replace(level, levels=level.levels + 1).largest
    assert 2**12 < level.levels < 2**15
    with pytest.raises(PrivacyError, match="any grid"):
        make(roster=100_000, n_min=90_000).fitted()


def test_noise_stays_within_its_margin() -> None:
    """The tail bound against the exact Skellam law: never below it, and not above twice the
    deviations needed.
    """
    level = make(pools=1, pooled=1000, levels=200)
    mu = level.variance * level.roster / level.honest
    tail = 2 * float(skellam_law.sf(level.noise_margin, mu / 2, mu / 2)) * level.fields
    assert tail <= 2**-40
    assert level.noise_margin / sqrt(mu) < 2 * float(norm.isf(2**-41 / level.fields))
    assert level.largest == level.roster * level.levels + level.noise_margin


@given(VALUES, st.integers(0, 2))
def test_a_clients_fields_stay_within_what_an_opening_allows(update: Tensor, pool: int) -> None:
    level = make(pooled=5, shared=2, rounding="conditional", bit_noise=1.0)
    blocks = level.blocks(level.encode(update, stream=stream("coins")), pool, inside=True)
    outside, head = level.largest_fields
    assert int(torch.cat([blocks.shared, blocks.pools.flatten()]).abs().max()) <= outside
    assert int(blocks.head.abs().max()) <= head
    farthest = level.encode(1e6 * torch.eye(7)[6], stream=stream("coins"))
    assert int(farthest.abs().max()) in [level.levels, level.levels + 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colluders", 0),
        ("colluders", 6),
        ("n_min", 9),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", float("nan")),
        ("levels", 0),
        ("levels", 3),
        ("levels", 2**18),
        ("bound", float("inf")),
        ("count_noise", -1.0),
        ("accepted_false_pass", 1.0),
        ("pools", 0),
    ],
)
def test_settings_that_protect_nothing_are_refused(field: str, value: Any) -> None:
    with pytest.raises(PrivacyError):
        make(**{field: value})


def test_an_error_shows_no_choice() -> None:
    level = make()
    with pytest.raises(SecureSumError) as caught:
        level.blocks(level.encode(torch.zeros(5)), 77)
    assert "77" not in str(caught.value)
    with pytest.raises(SecureSumError, match="bit"):
        level.blocks(level.encode(torch.zeros(5)), 1, inside=True)
    with pytest.raises(PrivacyError, match="one update"):
        level.encode(torch.zeros(6))
    with pytest.raises(PrivacyError, match="coins"):
        replace(level, rounding="conditional").encode(torch.zeros(5))


def test_the_skellam_charge_lies_above_the_gaussian_of_its_noise() -> None:
    """T rounds cost at least what one Gaussian of σ/√T does, under both adjacencies, and little
    more on a fine grid.
    """
    dp = pytest.importorskip("dp_accounting")
    accounting = pytest.importorskip("secure_fl.privacy.accounting")
    from secure_fl.privacy.adjacency import Adjacency

    level = make(pools=1, pooled=1_000_000, levels=2**14, noise_multiplier=4.0, roster=50, n_min=40)
    for adjacency, sensitivity in ((Adjacency.ZERO_OUT, 1), (Adjacency.REPLACE_ONE, 2)):
        gaussian = dp.get_epsilon_gaussian(4.0 / sensitivity / sqrt(20), 1e-6)
        charged = accounting.epsilon([level.event(20)], 1e-6, adjacency)
        assert gaussian < charged < 1.25 * gaussian


def test_norm_survives_huge_and_tiny_values() -> None:
    assert norm_of(torch.tensor([3.0e300, 4.0e300], dtype=torch.float64)) == pytest.approx(5.0e300)
    assert norm_of(torch.tensor([3.0e-300, 4.0e-300], dtype=torch.float64)) == pytest.approx(
        5.0e-300
    )
    assert norm_of(torch.zeros(3)) == norm_of(torch.zeros(0)) == 0
    assert norm_of(torch.tensor([1.0, float("nan")])) == float("inf")


def test_the_square_bound_holds_for_every_rounding_and_a_try_mostly_succeeds() -> None:
    level = make(pooled=64, pools=1, levels=24, rounding="conditional")
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))
    x = (x / x.norm() * 2.0).double() * 24 / 2
    coins = np.random.default_rng(0)
    rounded = np.floor(x.numpy() + coins.random((20_000, 64)))
    assert np.mean((rounded**2).sum(1) <= level.square_bound) >= 1 - np.exp(-0.5) - 0.02
    assert isqrt(level.square_bound) <= 24 + 8
