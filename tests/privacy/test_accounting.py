"""ε against published values, dp_accounting, and integrals computed here from the densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon, epsilon_of, merged, within
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent

ADD, ZERO, REPLACE = Adjacency.ADD_REMOVE, Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE
SKELLAM = IntegerEvent(
    "skellam",
    variance=4e6,
    l2=250.0,
    l1=20_000.0,
    l2_replace=500.0,
    l1_replace=40_000.0,
    parties=4,
    dimension=10_000,
    releases=1,
)


def normal(x: np.ndarray, mean: float, deviation: float = 1.0) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))


def integrated_epsilon(p: np.ndarray, q: np.ndarray, step: float, delta: float) -> float:
    """Smallest ε with ∫ max(p − e^ε q, 0) ≤ δ in both orders, by bisection."""
    low, high = 0.0, 40.0
    for _ in range(36):
        middle = (low + high) / 2
        worst = max(
            np.maximum(a - math.exp(middle) * b, 0).sum() * step for a, b in ((p, q), (q, p))
        )
        low, high = (low, middle) if worst <= delta else (middle, high)
    return high


@pytest.mark.parametrize(
    ("adjacency", "published"), [(ADD, 1.828), (ZERO, 1.828), (REPLACE, 2.843)]
)
def test_published_values_of_dp_sgd(adjacency: Adjacency, published: float) -> None:
    assert epsilon([GaussianEvent(1.0, 0.01, 1000)], 1e-5, adjacency) == pytest.approx(
        published, abs=6e-4
    )


@pytest.mark.parametrize(
    ("adjacency", "published"), [(ADD, 1.993), (ZERO, 1.993), (REPLACE, 4.377)]
)
def test_published_values_of_one_gaussian(adjacency: Adjacency, published: float) -> None:
    assert epsilon([GaussianEvent(2.0, 1.0, 1)], 1e-5, adjacency) == pytest.approx(
        published, abs=6e-4
    )


@pytest.mark.parametrize("rate", [0.02, 0.4])
@pytest.mark.parametrize(("noise", "contributions"), [(1.0, 1.0), (3.0, 2.0)])
def test_one_step_is_the_integral_over_its_two_densities(
    rate: float, noise: float, contributions: float
) -> None:
    x = np.arange(-20, 20, 2e-3)
    shift = contributions / noise
    up, down, still = (
        (1 - rate) * normal(x, 0) + rate * normal(x, mean) for mean in (shift, -shift, 0.0)
    )
    event = GaussianEvent(noise, rate, 1, contributions)
    for adjacency, other in ((ADD, still), (REPLACE, down)):
        exact = integrated_epsilon(up, other, 2e-3, 1e-4)
        assert exact - 1e-5 <= epsilon([event], 1e-4, adjacency) <= exact + 1e-3


@pytest.mark.parametrize("adjacency", [ADD, REPLACE])
def test_two_different_steps_are_the_integral_over_the_plane(adjacency: Adjacency) -> None:
    step = 0.04
    x = np.arange(-12, 12, step)

    def pair(rate: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
        first = (1 - rate) * normal(x, 0) + rate * normal(x, 1 / noise)
        return first, (1 - rate) * normal(x, 0) + rate * normal(
            x, -1 / noise if adjacency is REPLACE else 0.0
        )

    (p1, q1), (p2, q2) = pair(0.3, 1.2), pair(0.1, 0.9)
    exact = integrated_epsilon(np.outer(p1, p2).ravel(), np.outer(q1, q2).ravel(), step**2, 1e-3)
    assert epsilon(
        [GaussianEvent(1.2, 0.3, 1), GaussianEvent(0.9, 0.1, 1)], 1e-3, adjacency
    ) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_a_mixed_list_is_what_dp_accounting_composes(adjacency: Adjacency) -> None:
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    relation = {
        ADD: dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
        ZERO: dp.NeighboringRelation.REPLACE_SPECIAL,
        REPLACE: dp.NeighboringRelation.REPLACE_ONE,
    }
    theirs = PLDAccountant(relation[adjacency], 5e-4)
    theirs.compose(dp.PoissonSampledDpEvent(0.02, dp.GaussianDpEvent(0.8)), 200).compose(
        dp.GaussianDpEvent(4.0), 3
    )
    ours = epsilon(
        [
            GaussianEvent(1.6, 0.02, 150, 2.0),
            GaussianEvent(4.0, 1.0, 3),
            GaussianEvent(0.8, 0.02, 50),
        ],
        1e-5,
        adjacency,
    )
    assert ours == pytest.approx(theirs.get_epsilon(1e-5), rel=2e-3)


def test_full_participation_is_exact_and_immediate() -> None:
    from dp_accounting import get_epsilon_gaussian

    events = [GaussianEvent(5.0, 1.0, 30), GaussianEvent(10.0, 1.0, 12)]
    square = 30 / 25 + 12 / 100
    assert epsilon(events, 1e-6, ZERO) == pytest.approx(
        get_epsilon_gaussian(square**-0.5, 1e-6), abs=1e-9
    )
    assert epsilon(events, 1e-6, REPLACE) == pytest.approx(
        get_epsilon_gaussian((4 * square) ** -0.5, 1e-6), abs=1e-9
    )


def test_two_releases_of_one_sample_are_one_gaussian() -> None:
    first, second = 3.0, 4.0
    together = GaussianEvent((first**-2 + second**-2) ** -0.5, 1.0, 5)
    apart = [GaussianEvent(first, 1.0, 5), GaussianEvent(second, 1.0, 5)]
    assert epsilon([together], 1e-5, REPLACE) == pytest.approx(
        epsilon(apart, 1e-5, REPLACE), abs=1e-9
    )


def gain(p: np.ndarray, q: np.ndarray, gamma: float, cell: float) -> float:
    return float(np.maximum(p - gamma * q, 0).sum() * cell)


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_no_two_contents_are_worse_than_opposite_ones(rate: float) -> None:
    """Replace-one at contributions = 1: any two points of the ball, in the plane that they span."""
    step = 0.08
    grid = np.arange(-8, 8, step)
    draws = np.random.default_rng(4)

    def mixture(point: np.ndarray) -> np.ndarray:
        return (1 - rate) * np.outer(normal(grid, 0), normal(grid, 0)) + rate * np.outer(
            normal(grid, point[0]), normal(grid, point[1])
        )

    worst = mixture(np.array([1.0, 0.0])), mixture(np.array([-1.0, 0.0]))
    closest = 0.0
    for _ in range(60):
        angles, lengths = draws.uniform(0, 2 * math.pi, 2), draws.choice([0.0, 0.5, 1.0], 2)
        first, second = (
            mixture(r * np.array([math.cos(a), math.sin(a)]))
            for a, r in zip(angles, lengths, strict=True)
        )
        for gamma in (0.3, 0.9, 1.0, 1.2, 2.0, 5.0):
            bound = gain(*worst, gamma, step**2)
            found = gain(first, second, gamma, step**2)
            assert found <= 1.01 * bound + 1e-7  # the grid's own error, largest at γ = 5
            closest = max(
                closest, (found - max(0.0, 1 - gamma)) / max(bound - max(0.0, 1 - gamma), 1e-12)
            )
    assert closest > 0.9  # the search comes close to the worst, so it would see a worse one


def test_pure_events_compose_to_the_binomial_law() -> None:
    """Three answers at ε₀: δ(ε) by counting how many of three two-answer questions are
    told truly.
    """
    pure, releases, delta = 0.7, 3, 1e-2
    truth = math.exp(pure) / (1 + math.exp(pure))
    weights = np.array(
        [
            math.comb(releases, k) * truth**k * (1 - truth) ** (releases - k)
            for k in range(releases + 1)
        ]
    )
    exact = integrated_epsilon(weights, weights[::-1], 1.0, delta)
    assert (
        exact - 1e-9 <= epsilon([PureEvent(pure, False, releases)], delta, REPLACE) <= exact + 1e-3
    )
    assert epsilon([PureEvent(pure, False, 1)], 1e-9, REPLACE) == pytest.approx(pure, abs=1e-3)


def test_a_bounded_range_costs_less_in_many_releases_and_never_more() -> None:
    many = [epsilon([PureEvent(0.1, bounded, 200)], 1e-6, ADD) for bounded in (True, False)]
    assert many[0] < 0.7 * many[1]
    assert epsilon([PureEvent(0.1, True, 1)], 1e-6, ADD) <= 0.101


def test_an_exponential_mechanism_is_within_its_charge() -> None:
    """Scores of three answers move by up to 1; the choice's law is known exactly, so ε of eight
    choices is too, by Monte Carlo-free counting.
    """
    pure, releases, delta = 0.5, 8, 1e-3
    p, q = (np.exp(np.array(score) * pure / 2) for score in ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0]))
    p, q = p / p.sum(), q / q.sum()
    first, second = np.ones(1), np.ones(1)
    for _ in range(releases):
        first, second = np.outer(first, p).ravel(), np.outer(second, q).ravel()
    assert integrated_epsilon(first, second, 1.0, delta) <= epsilon(
        [PureEvent(pure, True, releases)], delta, REPLACE
    )


@pytest.mark.parametrize("adjacency", [ZERO, REPLACE])
def test_integer_and_gaussian_events_share_one_delta(adjacency: Adjacency) -> None:
    gaussians, integers = [GaussianEvent(1.0, 0.05, 100)], [SKELLAM.times(10)]
    apart = epsilon(gaussians, 5e-6, adjacency, fine=False) + epsilon(integers, 5e-6, adjacency)
    together = epsilon([*gaussians, *integers], 1e-5, adjacency, fine=False)
    assert (
        max(epsilon(gaussians, 1e-5, adjacency), epsilon(integers, 1e-5, adjacency))
        < together
        <= apart + 1e-9
    )
    if adjacency is ZERO:  # one Rényi curve beats splitting δ
        assert together < 0.9 * apart
    else:  # no curve for the sampled part: δ is split, and all of it is spent once
        shares = [0.01, 0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.98, 0.99]
        best = min(
            epsilon(gaussians, s * 1e-5, adjacency, fine=False)
            + epsilon(integers, (1 - s) * 1e-5, adjacency)
            for s in shares
        )
        assert best * 0.999 <= together


def test_charges_at_different_relations_compose() -> None:
    event = GaussianEvent(6.0, 1.0, 4)
    mixed = epsilon_of([Charge(event, ADD), Charge(event, REPLACE)], 1e-6)
    assert mixed == pytest.approx(
        epsilon([event.times(5)], 1e-6, ADD), abs=1e-9
    )  # 1 + 2² parts of μ²


events_of_one_kind = st.builds(
    GaussianEvent,
    st.floats(1.0, 5.0),
    st.floats(0.01, 0.9),
    st.integers(1, 300),
    st.sampled_from([1.0, 2.0]),
)
adjacencies = st.sampled_from(list(Adjacency))


@settings(max_examples=5)
@given(event=events_of_one_kind, adjacency=adjacencies, more=st.floats(1.05, 2.0))
def test_epsilon_moves_the_right_way(
    event: GaussianEvent, adjacency: Adjacency, more: float
) -> None:
    def cost(changed: Event, delta: float = 1e-5, relation: Adjacency = adjacency) -> float:
        return epsilon([changed], delta, relation, fine=False)

    here, slack = cost(event), 1e-2
    assert (
        cost(replace(event, noise_multiplier=event.noise_multiplier * more))
        <= here * (1 + slack) + slack
    )
    assert (
        cost(replace(event, sampling_rate=min(1.0, event.sampling_rate * more)))
        >= here * (1 - slack) - slack
    )
    assert cost(event.times(2)) >= here
    assert cost(replace(event, contributions=2.0)) >= here * (1 - slack)
    assert cost(event, delta=1e-3) <= here
    assert cost(event, relation=REPLACE) >= cost(event, relation=ADD) * (1 - slack)
    assert cost(event, relation=ZERO) == cost(event, relation=ADD)


@settings(max_examples=4)
@given(event=events_of_one_kind, adjacency=adjacencies)
def test_coarse_is_never_below_fine(event: GaussianEvent, adjacency: Adjacency) -> None:
    short = replace(
        event,
        steps=min(event.steps, 20),
        noise_multiplier=event.noise_multiplier * event.contributions,
    )
    assert epsilon([short], 1e-5, adjacency, fine=False) >= epsilon([short], 1e-5, adjacency) - 1e-6


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    seed=st.randoms(use_true_random=False),
)
def test_only_the_content_matters(counts: list[int], seed: object) -> None:
    events: list[Event] = [GaussianEvent(2.0 + count % 2, 0.1, count) for count in counts] + [
        PureEvent(0.1, True, count) for count in counts
    ]
    shuffled = list(events)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (merged(Charge(event, ZERO) for event in some) for some in (events, shuffled))
    assert first == second
    assert sum(charge.event.count for charge in first) == 2 * sum(counts)
    assert len(first) <= 3


def test_a_long_run_takes_no_longer_than_a_short_one() -> None:
    rounds = [GaussianEvent(1.0, 0.01, 1) for _ in range(1000)]
    assert epsilon(rounds, 1e-5, ADD, fine=False) == epsilon(
        [GaussianEvent(1.0, 0.01, 1000)], 1e-5, ADD, fine=False
    )


def test_a_million_quiet_steps_are_not_inflated_by_the_grid() -> None:
    found = epsilon([GaussianEvent(8.0, 0.001, 200_000)], 1e-6, ADD, fine=False)
    shift = 0.001 * math.sqrt(
        200_000 * math.expm1(1 / 64)
    )  # the central limit: μ = 0.056, a little too low
    assert (
        epsilon([GaussianEvent(1 / shift, 1.0, 1)], 1e-6, ADD)
        <= found
        <= 1.15 * epsilon([GaussianEvent(1 / shift, 1.0, 1)], 1e-6, ADD)
    )


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], 1e-5, REPLACE) == 0.0
    assert within([], 1e-5, 0.0)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, True])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        epsilon([GaussianEvent(1.0, 1.0, 1)], delta, ADD)


def test_refusals_name_what_to_claim_instead() -> None:
    with pytest.raises(PrivacyError, match="noise share along"):
        epsilon([SKELLAM], 1e-5, ADD)
    with pytest.raises(PrivacyError, match="adjacency"):
        epsilon([GaussianEvent(1.0, 1.0, 1)], 1e-5, "zero-out")  # type: ignore[arg-type]


ALL: Sequence[Event] = (GaussianEvent(1, 0.5, 3, 2), SKELLAM, PureEvent(0.5, True, 2))


@pytest.mark.parametrize("event", ALL)
def test_events_survive_json(event: Event) -> None:
    import json

    assert Event.from_dict(json.loads(json.dumps(event.to_dict()))) == event
    assert event.times(3).count == 3 * event.count
    with pytest.raises(FrozenInstanceError):
        event.anything = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", ALL)
def test_a_damaged_event_is_refused(event: Event) -> None:
    values = event.to_dict()
    with pytest.raises(PrivacyError, match="fields of"):
        Event.from_dict({**values, "extra": 1})
    with pytest.raises(PrivacyError, match="fields of"):
        Event.from_dict({name: value for name, value in values.items() if name != event.counted})
    with pytest.raises(PrivacyError, match="count"):
        Event.from_dict({**values, event.counted: 0})
    with pytest.raises(PrivacyError, match="unknown kind"):
        Event.from_dict({**values, "event": "magic"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianEvent(0.0, 0.1, 1),
        lambda: GaussianEvent(1.0, 0.0, 1),
        lambda: GaussianEvent(1.0, 1.1, 1),
        lambda: GaussianEvent(math.inf, 0.1, 1),
        lambda: GaussianEvent(math.nan, 0.1, 1),
        lambda: GaussianEvent(1.0, 0.1, 1.5),  # type: ignore[arg-type]
        lambda: GaussianEvent(1.0, 0.1, True),
        lambda: GaussianEvent("1", 0.1, 1),  # type: ignore[arg-type]
        lambda: PureEvent(-1.0, True, 1),
        lambda: PureEvent(1.0, 1, 1),  # type: ignore[arg-type]
        lambda: replace(SKELLAM, l1=1.0),
        lambda: replace(SKELLAM, kind="gaussian"),  # type: ignore[arg-type]
        lambda: replace(SKELLAM, parties=0),
        lambda: replace(SKELLAM, tv_per_draw=-1.0),
    ],
)
def test_events_check_their_values(make: object) -> None:
    with pytest.raises(PrivacyError, match="Remedy"):
        make()  # type: ignore[operator]
