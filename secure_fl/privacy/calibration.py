"""From a budget to a plan: the smallest noise that fits it, and how many rounds fit into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon_of, within
from secure_fl.privacy.events import Event, GaussianEvent
from secure_fl.privacy.ledger import Budget
from secure_fl.privacy.units import Adjacency

_LEAST, _MOST, _STRIDE = 1e-2, 1e5, 4.0
_RELATIVE = 2e-3
"""How far above the smallest fitting noise the answer may lie."""


def noise_for(
    epsilon: float, delta: float, adjacency: Adjacency, *, sampling_rate: float, steps: int, also: Sequence[Event] = (), contributions: float = 1.0
) -> float:
    """Noise multiplier of a Poisson-sampled Gaussian so that `steps` of it, together with `also`, are (ε, δ)-DP.

    **Guarantee.** By `accounting.epsilon` the plan costs at most `epsilon`; noise lower by 0.2 % would cost more.
    **Assumes.** As the events.

    Raises:
        PrivacyError: `also` alone passes ε, or no noise up to 1e5 fits.
    """

    def events(noise: float) -> Sequence[Event]:
        return [*also, GaussianEvent(noise, sampling_rate, steps, contributions)]

    if sampling_rate == 1 and not also and epsilon > 0:
        shift = contributions * (2 if adjacency is Adjacency.REPLACE_ONE else 1)
        exact = float(import_module("dp_accounting").get_sigma_gaussian(epsilon, delta)) * math.sqrt(steps) * shift
        return exact * (1 + 1e-9)  # the root is found to 1e-12 from either side
    return smallest_noise(events, epsilon, delta, adjacency)


def smallest_noise(
    events: Callable[[float], Sequence[Event]], epsilon: float, delta: float, adjacency: Adjacency, *, also: Sequence[Charge] = ()
) -> float:
    """The smallest noise z, to 0.2 %, whose plan `events(z)`, together with `also`, is (ε, δ)-DP; more noise must never cost more.

    For integer noise `events` makes the event whose variance is (z·C)² in integer units, with the sensitivities of that grid. It may raise
    PrivacyError for a z at which there is no such plan. The coarse accountant, never below the fine one, brackets; the fine one then looks lower.

    Raises:
        PrivacyError: not even z = 1e5 fits, or `events` refuses before the noise is enough.
    """

    def fits(noise: float, *, fine: bool) -> bool:
        return epsilon_of([*also, *(Charge(event, adjacency) for event in events(noise))], delta, fine=fine) <= epsilon

    def fits_below(noise: float, *, fine: bool) -> bool:
        try:
            return fits(noise, fine=fine)
        except PrivacyError:
            return False

    low, high = _bracket(lambda noise: fits(noise, fine=False), lambda noise: fits_below(noise, fine=False))
    low, high = _bisect(lambda noise: fits_below(noise, fine=False), low, high, 1e-2)
    low = high * 0.98
    while low > _LEAST and fits_below(low, fine=True):
        low, high = low * 0.95, low
    return _bisect(lambda noise: fits_below(noise, fine=True), low, high, _RELATIVE)[1]


def _bracket(fits: Callable[[float], bool], fits_below: Callable[[float], bool]) -> tuple[float, float]:
    """Noise that does not fit (or is below the least) and noise that does, at most a stride apart, searched from 1 in both directions."""
    high, stride, enough = 1.0, _STRIDE, fits(1.0)
    if enough:
        low = high / stride
        while low > _LEAST and fits_below(low):
            low /= stride
        return low, low * stride
    while not enough:
        if high * stride > _MOST:
            remedy = "raise ε, or release less"
            raise PrivacyError("no noise fits: the rest of the plan alone passes ε", field="noise", value=high, remedy=remedy)
        try:
            enough = fits(high * stride)
        except PrivacyError:
            stride = math.sqrt(stride)  # there is no plan with so much noise: approach where there is one
            if stride < 1 + _RELATIVE:
                raise
        else:
            high *= stride
    return high / stride, high


def _bisect(fits: Callable[[float], bool], low: float, high: float, relative: float) -> tuple[float, float]:
    """Neighbouring values, the lower of which does not fit and the higher of which does, as `low` and `high` do already."""
    while high > low * (1 + relative):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low, high


def rounds_within(budget: Budget, per_round: Sequence[Event], *, already: Sequence[Event] = (), most: int = 1_000_000) -> int:
    """How many rounds of `per_round`, after `already`, a subject's budget holds; at most `most`, 0 when not even one.

    The ledger refuses exactly the round after that: both decide by `accounting.within`.
    """

    def fits(rounds: int) -> bool:
        events = [*already, *(event.times(rounds) for event in per_round)]
        return within((Charge(event, budget.adjacency) for event in events), budget.delta, budget.epsilon)

    if not per_round:
        return most
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
