"""From a budget to a plan: the smallest noise that fits it, and how many rounds fit into it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, planned_epsilon, within
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import Event, GaussianEvent, PureEvent
from secure_fl.privacy.ledger import Budget

_LEAST, _MOST, _STRIDE = 1e-2, 1e5, 4.0
_RELATIVE = 2e-3
"""How far above the smallest fitting noise the answer may lie, beside the grid's own 0.1 %."""
_STEPS = 8


def noise_for(
    epsilon: float,
    delta: float,
    adjacency: Adjacency,
    *,
    sampling_rate: float,
    steps: int,
    also: Sequence[Event] = (),
    contributions: float = 1.0,
) -> float:
    """Noise multiplier of a Poisson-sampled Gaussian so that `steps` of it, together with `also`,
    are (ε, δ)-DP.

    **Guarantee.** By `accounting.epsilon` the plan costs at most `epsilon`; noise lower by 0.3 %
    would cost more.

    **Assumes.** As the events.

    Raises:
        PrivacyError: `also` alone passes ε, or no noise up to 1e5 fits.
    """

    def events(noise: float) -> Sequence[Event]:
        return [*also, GaussianEvent(noise, sampling_rate, steps, contributions)]

    if sampling_rate == 1 and not also and epsilon > 0:
        shift = contributions * (2 if adjacency is Adjacency.REPLACE_ONE else 1)
        one = float(import_module("dp_accounting").get_sigma_gaussian(epsilon, delta))
        # the root is found to 1e-12 from either side
        return one * math.sqrt(steps) * shift * (1 + 1e-9)
    return smallest_noise(events, epsilon, delta, adjacency)


def smallest_noise(
    events: Callable[[float], Sequence[Event]],
    epsilon: float,
    delta: float,
    adjacency: Adjacency,
    *,
    also: Sequence[Charge] = (),
) -> float:
    """The smallest noise z, to 0.3 %, whose plan `events(z)`, together with `also`, is (ε, δ)-DP;
    more noise must never cost more.

    For integer noise `events` makes the event whose variance is (z·C)² in integer units, with the
    sensitivities of that grid. It may raise PrivacyError for a z at which there is no such plan.

    **Guarantee.** The plan of the noise that is returned was itself held against ε, by
    `accounting.planned_epsilon`, an upper bound by which the gate of a run lets pass too. Guesses
    and slopes only say where to look.

    Raises:
        PrivacyError: not even z = 1e5 fits, or `events` refuses before the noise is enough.
    """

    def charges(noise: float) -> list[Charge]:
        return [*also, *(Charge(event, adjacency) for event in events(noise))]

    def cost(noise: float) -> float:
        return planned_epsilon(charges(noise), delta)

    def fits_below(noise: float) -> bool:
        with suppress(PrivacyError):
            return cost(noise) <= epsilon
        return False

    guess = _guess(charges, epsilon, delta)
    if guess is not None and (found := _along_the_slope(cost, epsilon, *guess)) is not None:
        return found
    low, high = _bracket(lambda noise: cost(noise) <= epsilon, fits_below)
    return _bisect(fits_below, low, high, _RELATIVE)[1]


def _along_the_slope(
    cost: Callable[[float], float], epsilon: float, noise: float, slope: float
) -> float | None:
    """Noise that fits and is within the tolerance of too little by the slope there; None where a
    few steps find none.

    One evaluation takes up to half a second; ε against noise is so nearly a power that two or three
    are enough.
    """
    value = cost(noise)
    for _ in range(_STEPS):
        if value <= epsilon and math.log(epsilon / value) <= slope * _RELATIVE:
            return noise
        step = math.log(value / epsilon) / slope + 0.4 * _RELATIVE
        further = noise * math.exp(min(1.0, max(-1.0, step)))
        if not _LEAST <= further <= _MOST:
            return None
        costs = cost(further)
        if abs(step) > 1e-4 and costs > 0:
            slope = min(8.0, max(0.2, math.log(value / costs) / math.log(further / noise)))
        noise, value = further, costs
    return None


def _guess(
    charges: Callable[[float], Sequence[Charge]], epsilon: float, delta: float
) -> tuple[float, float] | None:
    """Where the noise should be by the central limit theorem (Bu et al. 2020), and by which power
    of it ε falls there.

    A guess, never a bound. None for other events than Gaussian ones, and where there is none.
    """
    if not epsilon > 0:
        return None
    accountant, step = import_module("dp_accounting"), 1.02
    deviation = 1 / float(accountant.get_sigma_gaussian(epsilon, delta))

    def square(noise: float) -> float:
        return _rough_square(charges(noise))

    try:
        kinds = {type(charge.event) for charge in charges(1.0)}
        if not (kinds <= {GaussianEvent, PureEvent} and square(_LEAST) > deviation**2):
            return None
        if square(_MOST) >= deviation**2:
            return None
    except PrivacyError:
        return None
    noise = _bisect(lambda noise: square(noise) <= deviation**2, _LEAST, _MOST, 1e-3)[1]
    steep = math.log(square(noise / step) / square(noise * step)) / 2
    above, below = (
        float(accountant.get_epsilon_gaussian(1 / (deviation * factor), delta))
        for factor in (step, 1 / step)
    )
    return noise, max(0.3, steep * math.log(above / below) / math.log(step**2) ** 2)


def _rough_square(charges: Sequence[Charge]) -> float:
    """About which μ² of one Gaussian mechanism the Gaussian events together have."""
    square = 0.0
    for event, adjacency in charges:
        if isinstance(event, GaussianEvent):
            each = ((2 if adjacency is Adjacency.REPLACE_ONE else 1) / event.effective_noise) ** 2
            square += event.steps * min(each, event.sampling_rate**2 * math.expm1(min(each, 50.0)))
    return square


def _bracket(
    fits: Callable[[float], bool], fits_below: Callable[[float], bool]
) -> tuple[float, float]:
    """Noise that does not fit and noise that does, a stride apart, searched from 1 both ways."""
    high, stride, enough = 1.0, _STRIDE, fits(1.0)
    if enough:
        low = high / stride
        while low > _LEAST and fits_below(low):
            low /= stride
        return low, low * stride
    while not enough:
        if high * stride > _MOST:
            problem = "no noise fits: the rest of the plan alone passes ε"
            raise PrivacyError(problem, "noise", high, "raise ε, or release less")
        try:
            enough = fits(high * stride)
        except PrivacyError:
            # there is no plan with so much noise: approach where there is one
            stride = math.sqrt(stride)
            if stride < 1 + _RELATIVE:
                raise
        else:
            high *= stride
    return high / stride, high


def _bisect(
    fits: Callable[[float], bool], low: float, high: float, relative: float
) -> tuple[float, float]:
    """Neighbours, of which the higher fits and the lower does not, as `low` and `high` do."""
    while high > low * (1 + relative):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low, high


def noise_of_run(
    events: Callable[[float], Sequence[Event]],
    epsilon: float,
    delta: float,
    adjacency: Adjacency,
    *,
    also: Sequence[Charge] = (),
    remedy: str,
) -> float:
    """As `smallest_noise`, for a whole run's plan.

    Args:
        remedy: what lets a smaller ε be reached, beside raising it.

    Raises:
        PrivacyError: no noise fits; it names `privacy.epsilon` and the smallest that any noise
            reaches. Or no noise at all has a plan.
    """
    try:
        return smallest_noise(events, epsilon, delta, adjacency, also=also)
    except PrivacyError as error:
        least = least_epsilon(events, delta, adjacency, also=also)
        if least is None or least <= epsilon:
            raise
        problem = f"no noise reaches it: {error.problem}"
        told = f"at least {_rounded_up(least)}, or {remedy}"
        raise PrivacyError(problem, "privacy.epsilon", epsilon, told) from None


def least_epsilon(
    events: Callable[[float], Sequence[Event]],
    delta: float,
    adjacency: Adjacency,
    *,
    also: Sequence[Charge] = (),
) -> float | None:
    """ε of `events(z)` and `also` at the largest z for which there is a plan; None for none."""

    def cost(noise: float) -> float | None:
        try:
            charges = [*also, *(Charge(event, adjacency) for event in events(noise))]
        except PrivacyError:
            return None
        return planned_epsilon(charges, delta)

    found, noise, stride = None, _LEAST, _STRIDE
    while stride > 1 + _RELATIVE and noise <= _MOST:
        made = cost(noise * stride)
        if made is not None:
            found, noise = made, noise * stride
        elif found is None:
            noise *= stride  # no plan with so little noise either
        else:
            stride = math.sqrt(stride)
    return found


def _rounded_up(value: float) -> str:
    """The value in text, rounded up to three digits, so never lower."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit) * unit:.6g}"


def rounds_within(
    budget: Budget,
    per_round: Sequence[Event],
    *,
    already: Sequence[Event] = (),
    most: int = 1_000_000,
) -> int:
    """How many rounds of `per_round`, after `already`, a subject's budget holds; at most `most`, 0
    when not even one.

    The ledger refuses exactly the round after that: both decide by `accounting.within`.
    """

    def charges(rounds: int) -> list[Charge]:
        events = [*already, *(event.times(rounds) for event in per_round)]
        return [Charge(event, budget.adjacency) for event in events]

    def fits(rounds: int) -> bool:
        return within(charges(rounds), budget.delta, budget.epsilon)

    if not per_round:
        return most

    def cost(rounds: int) -> float:
        return planned_epsilon(charges(rounds), budget.delta)

    low, step = _rounds_about(cost, budget.epsilon, most), 1
    while low < most and fits(min(low + step, most)):  # the fine bound may let a few more pass
        low, step = min(low + step, most), 2 * step
    within_most = range(min(low + step, most + 1))
    return bisect_left(within_most, True, lo=low + 1, key=lambda n: not fits(n)) - 1


def _rounds_about(cost: Callable[[int], float], epsilon: float, most: int) -> int:
    """The most rounds that cost at most ε; at most `most`.

    ε against rounds is nearly a power: a few steps along it, between halvings.
    """
    low, high, rounds, power, halve = 0, most + 1, 1, 0.7, False
    known: tuple[int, float] | None = None
    while high - low > 1:
        value = cost(rounds)
        if known is not None and 0 < min(value, known[1]) < max(value, known[1]) < math.inf:
            power = min(2.0, max(0.2, math.log(value / known[1]) / math.log(rounds / known[0])))
        known = (rounds, value)
        low, high = (rounds, high) if value <= epsilon else (low, rounds)
        pace = (epsilon / value) ** (1 / power) if value > 0 else math.inf
        aimed = rounds * min(64.0, max(1 / 64, pace)) if value > 0 else math.inf
        toward = int(aimed) + (0 if value > epsilon or int(aimed) > low else 1)
        rounds = (low + high) // 2 if halve else min(max(toward, low + 1), high - 1)
        halve = not halve and high <= most
    return low
