"""ε of a list of releases: an upper bound for one neighbour relation and one δ, never a guess.

Gaussian events are composed as privacy loss distributions (PLD) by dp_accounting, integer events by
their Rényi curves. Both are upper bounds by construction, so where several apply, the smallest is
charged. Nothing here has a default adjacency, takes a rate at which clients are sampled, or
approximates by a central limit theorem.

Which pair of distributions stands for a Gaussian event, with s = contributions/σ and q the
sampling rate:

- zero-out, add-remove: (1−q)N(0) + qN(s) against N(0), in both orders. A unit that is not drawn
  changes nothing; drawn, it moves the sum by at most s noise deviations.
- replace-one: (1−q)N(0) + qN(s) against (1−q)N(0) + qN(−s). Both contents move the sum by at most s
  from where it is without the unit. Opposite directions are the worst: for likelihood ratios L₁, L₂
  against "not drawn", the test's gain is a convex function of (1−q)(1−γ) + qL₁ − γqL₂, its mixed
  second derivative in (L₁, L₂) is negative, so no choice of directions, also none made adaptively
  between two releases of one step, does better than keeping them opposed throughout (the
  verification step of stochastic control).

The Rényi accountant of dp_accounting ignores the relation for Gaussians (ε of 2.17 instead of 4.38
for one release at σ = 2): for replace-one no Gaussian passes through it; full participation has a
closed form, and sampled steps are a PLD or nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from secure_fl.errors import DependencyError, PrivacyError
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.integer_curves import (
    ORDERS,
    Curve,
    gaussian_curve,
    integer_curve,
    pure_curve,
    sampled_gaussian_curve,
)

_FINE, _COARSE = 2e-4, 5e-3
"""Grid of privacy losses. At q=.01, σ=1, T=1000: ε 1.8283 in 0.4 s and 1.8463 in 0.1 s; a grid of
1e-4 gives 1.8282.
"""
_PLANNED, _WIDEST = 1 / 8, 2.5e-2
"""For planning a multiple of the fine grid, up to this share of q·s, by which most of a step's
losses deviate, and no wider than the second: at q=.01, σ=1, T=1000 that is 1.2e-3, which takes 0.05
s and finds 1.8293."""
_MOST_POINTS = 1e6
_NO_BOUND = 500.0
"""Nats a grid's points are apart, which dp_accounting raises e to: such a bound helps nobody."""
_DELTA_SHARES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)


class Charge(NamedTuple):
    """An event, and the adjacency that it is charged at: releases of a run may differ in it."""

    event: Event
    adjacency: Adjacency


def epsilon(
    events: Sequence[Event], delta: float, adjacency: Adjacency, *, fine: bool = True
) -> float:
    """ε such that all `events` together are (ε, δ)-DP.

    Args:
        events: what was released; order and grouping do not matter.
        delta: within (0, 1).
        adjacency: how neighbours differ; there is no default, since an ε without it means nothing.
        fine: False for a quicker, larger upper bound (live display).

    **Guarantee.** An upper bound on the ε of the adaptive composition of all events, at δ, infinity
    where none is known.

    **Assumes.** Every event's own assumptions; floating-point error of dp_accounting's convolutions
    is not charged.

    **Not covered.** Choices made from the data that are no event, such as a search over settings.

    Raises:
        PrivacyError: δ outside (0, 1), or an event that has no proof for this adjacency.
        DependencyError: dp-accounting is missing.
    """
    return epsilon_of([Charge(event, adjacency) for event in events], delta, fine=fine)


def epsilon_of(charges: Iterable[Charge], delta: float, *, fine: bool = True) -> float:
    """As `epsilon`, each event at its own adjacency."""
    return _epsilon(merged(charges), _probability(delta), _FINE if fine else _COARSE)


def planned_epsilon(charges: Iterable[Charge], delta: float) -> float:
    """As `epsilon_of`, on a grid that is as fine as the steps need: as quick as the coarse one for
    most, and an upper bound like both.

    Where a step loses little, the coarse grid's ε is 1 % too high; this one's is within 0.1 % of
    the fine one's.
    """
    held = merged(charges)
    return _epsilon(held, _probability(delta), _planning_grid(_Parts.of(held)))


def _probability(delta: float) -> float:
    if isinstance(delta, bool) or not 0 < delta < 1:
        remedy = "a number within (0, 1), far below one over the units"
        raise PrivacyError("not a probability", "delta", delta, remedy)
    return delta


@lru_cache(maxsize=8192)
def _epsilon(charges: tuple[Charge, ...], delta: float, base: float) -> float:
    """Kept, since plan, gate, file, display and claims ask for one ε; `base`: the widest grid."""
    parts = _Parts.of(charges)
    return _with_sampler_error(_best_bound(parts, base), delta, parts.sampler_error)


def within(charges: Iterable[Charge], delta: float, limit: float) -> bool:
    """Whether ε is at most `limit`: by the coarse bound, the planning one, then the fine one."""
    held = merged(charges)
    if epsilon_of(held, delta, fine=False) <= limit or planned_epsilon(held, delta) <= limit:
        return True
    return epsilon_of(held, delta, fine=True) <= limit


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """Equal mechanisms as one event with the sum of their counts, in an order that depends on the
    content only. Raises PrivacyError: an event that has no proof for its adjacency.
    """
    counts: defaultdict[Charge, int] = defaultdict(int)
    for event, adjacency in charges:
        _check_adjacency(event, adjacency)
        counts[Charge(event.with_count(1), adjacency)] += event.count
    ordered = sorted(counts.items(), key=lambda item: repr(item[0]))
    return tuple(Charge(one.event.with_count(count), one.adjacency) for one, count in ordered)


def _check_adjacency(event: Event, adjacency: Adjacency) -> None:
    if not isinstance(adjacency, Adjacency):
        raise PrivacyError("not an adjacency", "adjacency", adjacency, f"{list(Adjacency)}")
    if isinstance(event, IntegerEvent) and adjacency is Adjacency.ADD_REMOVE:
        problem = "an absent client takes its noise share along"
        remedy = "claim zero-out on a public roster, or replace-one"
        raise PrivacyError(problem, "adjacency", str(adjacency), remedy)


@dataclass(frozen=True)
class _Parts:
    """Charges by how they compose. `full` is Σ μ² of Gaussians with full participation."""

    full: float
    sampled: dict[tuple[float, float, bool], int]  # noise over sensitivity, rate, replaced -> steps
    pure: tuple[PureEvent, ...]
    integer: tuple[Charge, ...]

    @classmethod
    def of(cls, charges: Sequence[Charge]) -> _Parts:
        full, sampled = 0.0, defaultdict[tuple[float, float, bool], int](int)
        for event, adjacency in charges:
            if isinstance(event, GaussianEvent):
                replaced = adjacency is Adjacency.REPLACE_ONE
                if event.sampling_rate == 1:
                    full += event.steps * ((2 if replaced else 1) / event.effective_noise) ** 2
                else:
                    sampled[event.effective_noise, event.sampling_rate, replaced] += event.steps
        pure = tuple(event for event, _ in charges if isinstance(event, PureEvent))
        integer = tuple(charge for charge in charges if isinstance(charge.event, IntegerEvent))
        return cls(full, dict(sampled), pure, integer)

    @property
    def sampler_error(self) -> float:
        """Total variation between integer noise as drawn and as charged, summed over all draws."""
        events = [each.event for each in self.integer if isinstance(each.event, IntegerEvent)]
        return sum(e.tv_per_draw * e.parties * e.dimension * e.releases for e in events)

    @property
    def has_curve(self) -> bool:
        """Whether every part has a Rényi curve: sampled Gaussians under replace-one have none."""
        return not any(replaced for _, _, replaced in self.sampled)

    @property
    def is_one_gaussian(self) -> bool:
        return not (self.sampled or self.pure or self.integer)

    def without_losses(self) -> _Parts:
        """What has to go through Rényi curves, and pure events with them."""
        return _Parts(0.0, {}, self.pure, self.integer)

    def losses_only(self) -> _Parts:
        """The Gaussian releases alone, for bounds by privacy losses."""
        return _Parts(self.full, self.sampled, (), ())


Bound = Callable[[float], float]
"""δ -> ε, for releases that are fixed."""


def _best_bound(parts: _Parts, base: float) -> Bound:
    """The smallest of the bounds that are valid for these parts."""
    if parts.is_one_gaussian:
        return _one_gaussian(parts.full)
    if not parts.integer:
        losses = _loss_bound(parts, base)
        worth = parts.has_curve and any(event.bounded_range for event in parts.pure)
        curves = _curve_bound(parts) if worth else None
        return lambda delta: min(losses(delta), math.inf if curves is None else curves(delta))
    gaussians, rest = parts.losses_only(), _curve_bound(parts.without_losses())
    everything = _curve_bound(parts) if parts.has_curve else None
    if everything is not None and not (parts.full or parts.sampled):
        return everything
    losses = _best_bound(gaussians, base)

    def split(delta: float) -> float:
        return min(losses(share * delta) + rest((1 - share) * delta) for share in _DELTA_SHARES)

    return lambda delta: min(split(delta), math.inf if everything is None else everything(delta))


def _one_gaussian(square: float) -> Bound:
    """The Gaussian mechanism with μ² = `square`, exactly."""
    exact = _load("dp_accounting").get_epsilon_gaussian
    return lambda delta: float(exact(1 / math.sqrt(square), delta)) if square else 0.0


def _curve_bound(parts: _Parts) -> Bound:
    total: Curve = np.zeros_like(ORDERS)
    if parts.full:
        total += gaussian_curve(parts.full**-0.5)
    for (noise, rate, _), steps in parts.sampled.items():
        total += steps * sampled_gaussian_curve(noise, rate)
    for pure in parts.pure:
        total += pure.releases * pure_curve(pure.epsilon, bounded_range=pure.bounded_range)
    for event, adjacency in parts.integer:
        assert isinstance(event, IntegerEvent)
        total += event.releases * integer_curve(event, adjacency)
    convert = _load("dp_accounting.rdp.rdp_privacy_accountant").compute_epsilon
    return lambda delta: float(convert(ORDERS, total, delta)[0])


def _loss_bound(parts: _Parts, base: float) -> Bound:
    """The bound by composed privacy loss distributions, each rounded so that ε can only grow."""
    dp, pld = _load("dp_accounting"), _load("dp_accounting.pld.privacy_loss_distribution")
    relation = dp.NeighboringRelation
    width = _grid(parts, base)
    if width > _NO_BOUND:
        return lambda _: math.inf
    gaussian = partial(pld.from_gaussian_mechanism, value_discretization_interval=width)
    composed = [gaussian(parts.full**-0.5)] if parts.full else []
    for (noise, rate, replaced), steps in parts.sampled.items():
        kind = relation.REPLACE_ONE if replaced else relation.ADD_OR_REMOVE_ONE
        step = gaussian(noise, sampling_prob=rate, neighboring_relation=kind)
        composed.append(step.self_compose(steps))
    for pure in parts.pure:
        pair = _load("dp_accounting.pld.common").DifferentialPrivacyParameters(pure.epsilon, 0.0)
        composed.append(pld.from_privacy_parameters(pair, width).self_compose(pure.releases))
    total = reduce(lambda one, other: one.compose(other), composed)
    return lambda delta: float(total.get_epsilon_for_delta(delta))


def _deviation(noise: float, rate: float, replaced: bool) -> float:
    """How much a sampled step's loss deviates, about: q·√(exp(s²) − 1)."""
    return rate * math.sqrt(math.expm1(min(((2 if replaced else 1) / noise) ** 2, 50.0)))


def _planning_grid(parts: _Parts) -> float:
    shares = [rate * (2 if replaced else 1) / noise for noise, rate, replaced in parts.sampled]
    least = min(shares, default=math.inf)
    return _FINE * max(1, math.floor(min(_PLANNED * least, _WIDEST) / _FINE))


def _grid(parts: _Parts, base: float) -> float:
    """Width of the grid of losses: fine enough for the smallest step's loss, coarse enough for a
    million points in all.

    Where a step's loss deviates by less than the grid's width w, rounding inflates its variance to
    about w times it, in every step. So the grid is at most half of it, unless the inflation of all
    steps together stays below a deviation of two widths.
    """
    width, farthest, squares = base, 0.0, parts.full
    for (noise, rate, replaced), steps in parts.sampled.items():
        shift = (2 if replaced else 1) / noise
        deviation = _deviation(noise, rate, replaced)
        width = min(width, max(deviation / 2, (2 * base) ** 2 / (steps * deviation)))
        farthest = max(farthest, shift**2 / 2 + 10 * shift)
        squares += steps * min(shift**2, deviation**2)
    for pure in parts.pure:
        width = min(width, pure.epsilon / 100)  # it is rounded up to the grid once a release
    bounded = sum(pure.epsilon * pure.releases for pure in parts.pure)
    spread = squares / 2 + 10 * math.sqrt(squares) + bounded
    return max(width, max(farthest, spread) / _MOST_POINTS)


def _with_sampler_error(bound: Bound, delta: float, error: float) -> float:
    """ε where noise is drawn within total variation `error`: that costs (1 + e^ε)·error of δ."""
    value = bound(delta)
    if not error:
        return value
    for _ in range(100):  # ε has to hold at what it leaves of δ; two turns are usual
        left = delta - (1 + math.exp(min(value, 700.0))) * error
        if left <= 0:
            break
        charged = bound(left)
        if charged <= value:
            return value
        value = charged * (1 + 1e-9) + 1e-12
    return math.inf


def _load(module: str) -> Any:
    """An accountant's module, imported when first needed: it brings scipy along, 2 s."""
    try:
        return import_module(module)
    except ImportError as missing:
        package = module.partition(".")[0].replace("_", "-")
        remedy = f"pip install {package}"
        raise DependencyError("not installed", package, str(missing), remedy) from missing
