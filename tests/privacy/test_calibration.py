"""Noise and rounds for a budget: what comes out fits, and a little less would not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import PrivacyError
from secure_fl.privacy import calibration
from secure_fl.privacy.accounting import Charge, epsilon, planned_epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import noise_for, noise_of_run, rounds_within, smallest_noise
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget

ADD, ZERO, REPLACE = Adjacency.ADD_REMOVE, Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE


@pytest.mark.parametrize(("adjacency", "target"), [(ADD, 1.8282), (REPLACE, 2.8434)])
def test_the_published_setting_comes_back(adjacency: Adjacency, target: float) -> None:
    assert noise_for(target, 1e-5, adjacency, sampling_rate=0.01, steps=1000) == pytest.approx(
        1.0, rel=3e-3
    )


@pytest.mark.parametrize(
    ("adjacency", "also"),
    [(ADD, ()), (ZERO, (PureEvent(0.1, True, 10),)), (REPLACE, (PureEvent(0.1, True, 10),))],
)
def test_what_is_found_fits_and_less_does_not(
    adjacency: Adjacency, also: tuple[Event, ...]
) -> None:
    noise = noise_for(2.0, 1e-5, adjacency, sampling_rate=0.1, steps=50, also=also)

    def cost(times: float) -> float:
        return epsilon([*also, GaussianEvent(noise * times, 0.1, 50)], 1e-5, adjacency)

    assert cost(1.0) <= 2.0 < cost(0.995)


def test_full_participation_is_solved_exactly() -> None:
    for adjacency, shift in ((ZERO, 1.0), (REPLACE, 2.0)):
        noise = noise_for(1.0, 1e-6, adjacency, sampling_rate=1.0, steps=25)
        assert epsilon([GaussianEvent(noise, 1.0, 25)], 1e-6, adjacency) == pytest.approx(
            1.0, abs=1e-6
        )
        assert epsilon([GaussianEvent(noise, 1.0, 25)], 1e-6, adjacency) <= 1.0
        assert noise == pytest.approx(
            shift * noise_for(1.0, 1e-6, ZERO, sampling_rate=1.0, steps=25)
        )


@settings(max_examples=8)
@given(epsilon_here=st.floats(0.2, 8.0), steps=st.integers(1, 50), more=st.floats(1.2, 3.0))
def test_noise_moves_the_right_way(epsilon_here: float, steps: int, more: float) -> None:
    def noise(target: float, count: int) -> float:
        return smallest_noise(lambda z: [GaussianEvent(z, 1.0, count)], target, 1e-5, ZERO)

    here = noise(epsilon_here, steps)
    assert noise(epsilon_here * more, steps) <= here * 1.003
    assert noise(epsilon_here, math.ceil(steps * more)) >= here * 0.997
    assert here == pytest.approx(
        noise_for(epsilon_here, 1e-5, ZERO, sampling_rate=1.0, steps=steps), rel=4e-3
    )


@pytest.mark.parametrize("adjacency", [ZERO, REPLACE])
def test_integer_noise_on_its_grid(adjacency: Adjacency) -> None:
    """z for a norm bound of 4096 grid steps with a count beside it, whose unit follows z: as a
    client-level plan is made.
    """
    levels, dimension = 4096.0, 10_000

    def plan(z: float) -> Sequence[Event]:
        unit = math.ceil(z * levels / 60)
        l2 = math.hypot(levels, unit)
        l1 = levels * math.sqrt(dimension) + unit
        far = max(2 * levels, math.sqrt(2) * l2)
        return [
            IntegerEvent(
                "skellam",
                (z * levels) ** 2,
                l2,
                l1,
                far,
                2 * l1,
                parties=6,
                dimension=dimension,
                releases=30,
            )
        ]

    z = smallest_noise(plan, 3.0, 1e-6, adjacency)
    assert epsilon(plan(z), 1e-6, adjacency) <= 3.0 < epsilon(plan(z * 0.995), 1e-6, adjacency)
    gaussian = noise_for(3.0, 1e-6, adjacency, sampling_rate=1.0, steps=30)
    assert gaussian < z < 1.4 * gaussian


def test_a_plan_may_refuse_noise_that_is_too_little_but_not_too_much() -> None:
    def coarse_grid(z: float) -> Sequence[Event]:
        if z < 0.5:
            raise PrivacyError("too coarse", field="levels", value=z, remedy="more")
        return [GaussianEvent(z, 1.0, 1)]

    assert smallest_noise(coarse_grid, 1000.0, 1e-5, ZERO) == pytest.approx(0.5, rel=3e-3)

    def narrow_field(z: float) -> Sequence[Event]:
        if z > 3:
            raise PrivacyError("fields overflow", field="levels", value=z, remedy="fewer clients")
        return [GaussianEvent(z, 1.0, 1)]

    assert smallest_noise(narrow_field, 4.0, 1e-5, ZERO) < 3
    with pytest.raises(PrivacyError, match="overflow"):
        smallest_noise(narrow_field, 0.1, 1e-5, ZERO)


def test_no_noise_helps_when_the_rest_is_too_much() -> None:
    with pytest.raises(PrivacyError, match="rest of the plan alone"):
        noise_for(2.0, 1e-5, ADD, sampling_rate=0.1, steps=10, also=[PureEvent(5.0, False, 1)])


def test_rounds_until_the_budget_is_gone() -> None:
    budget = Budget(2.0, 1e-5, PrivacyUnit.EXAMPLE, ADD)
    step = GaussianEvent(2.0, 0.05, 20)
    rounds = rounds_within(budget, [step])
    assert (
        epsilon([step.times(rounds)], 1e-5, ADD)
        <= 2.0
        < epsilon([step.times(rounds + 1)], 1e-5, ADD)
    )
    assert rounds_within(budget, [step], already=[step.times(rounds - 3)]) == 3
    assert rounds_within(budget, [step], already=[step.times(rounds + 1)]) == 0
    assert rounds_within(budget, [GaussianEvent(1.0, 1.0, 50)]) == 0
    assert rounds_within(budget, [GaussianEvent(1e4, 1.0, 1)], most=7) == 7
    assert rounds_within(budget, [], most=12) == 12
    for most in (rounds - 1, rounds, rounds + 1):
        assert rounds_within(budget, [step], most=most) == min(rounds, most)


@pytest.mark.parametrize(("target", "replaced"), [(0.5, False), (8.0, False), (8.0, True)])
def test_a_search_takes_few_evaluations_and_what_it_finds_is_nearly_the_least(
    target: float, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of different sizes cost a search each: a hundred of them must not take minutes."""
    asked = []

    def counted(charges: list[Charge], delta: float) -> float:
        asked.append(charges)
        return planned_epsilon(charges, delta)

    monkeypatch.setattr(calibration, "planned_epsilon", counted)
    adjacency = REPLACE if replaced else ZERO
    for examples in (200, 700):

        def plan(z: float, rate: float = 64 / examples) -> Sequence[Event]:
            return [
                GaussianEvent(z, rate, math.ceil(10 / rate)),
                GaussianEvent(3 * z, rate / 2, 100),
                PureEvent(0.02, True, 5),
            ]

        asked.clear()
        noise = smallest_noise(plan, target, 1e-5, adjacency)
        assert len(asked) <= 6
        assert (
            epsilon(plan(noise), 1e-5, adjacency)
            <= target
            < epsilon(plan(noise * 0.996), 1e-5, adjacency)
        )


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.6])
@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_the_grid_of_plans_gives_an_upper_bound_that_is_nearly_the_fine_one(
    rate: float, noise: float
) -> None:
    for adjacency in (ZERO, REPLACE):
        charges = [Charge(GaussianEvent(noise, rate, 200), adjacency)]
        fine = epsilon([charge.event for charge in charges], 1e-5, adjacency)
        assert fine * (1 - 1e-9) <= planned_epsilon(charges, 1e-5) <= fine * 1.003 + 1e-4


def test_a_budget_that_no_noise_reaches_is_named_with_the_smallest_that_one_does() -> None:
    def narrow(z: float) -> Sequence[Event]:
        if z > 3:
            raise PrivacyError("fields overflow", field="levels", value=z, remedy="fewer clients")
        return [GaussianEvent(z, 1.0, 4)]

    def told(plan: Callable[[float], Sequence[Event]], also: Sequence[Charge] = ()) -> float:
        with pytest.raises(PrivacyError, match="no noise reaches it") as caught:
            noise_of_run(plan, 0.5, 1e-5, ZERO, also=also, remedy="fewer rounds")
        assert (caught.value.field, caught.value.value) == ("privacy.epsilon", 0.5)
        assert caught.value.remedy.endswith("or fewer rounds")
        return float(caught.value.remedy.split()[2].rstrip(","))

    least = told(narrow)
    assert epsilon(narrow(3.0), 1e-5, ZERO) <= least < epsilon(narrow(3.0), 1e-5, ZERO) * 1.02
    assert noise_of_run(narrow, least, 1e-5, ZERO, remedy="") <= 3
    also = [Charge(PureEvent(0.9, False, 1), ZERO)]
    least = told(lambda z: [GaussianEvent(z, 0.1, 10)], also)
    assert 0.9 <= least < 0.95
    noise_of_run(
        lambda z: [GaussianEvent(z, 0.1, 10)], least * 1.01, 1e-5, ZERO, also=also, remedy=""
    )

    def never(z: float) -> Sequence[Event]:
        raise PrivacyError("too few clients", field="roster", value=1, remedy="more")

    with pytest.raises(PrivacyError, match="too few clients"):
        noise_of_run(never, 0.5, 1e-5, ZERO, remedy="fewer rounds")
