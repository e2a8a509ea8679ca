"""What was released, as the accountant needs to know it: one frozen event a kind of mechanism, in
plain numbers that survive JSON.

An event carries no data and no ε: ε is computed from events, adjacency and δ in `accounting`. There
is no event for a batch that was shuffled, and no field for the rate at which a server samples
clients, because neither has a proof that could be charged here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import ClassVar, Literal, Self

from secure_fl.errors import PrivacyError


@dataclass(frozen=True)
class Event:
    """Base of all events; made by its subclasses only.

    `counted` names the field that says how often the mechanism ran: two events that differ in
    nothing else compose by adding it.
    """

    name: ClassVar[str] = ""
    counted: ClassVar[str] = ""

    @property
    def count(self) -> int:
        """How often the mechanism ran."""
        return int(getattr(self, self.counted))

    def times(self, repetitions: int) -> Self:
        """The same mechanism run `repetitions` times as often."""
        return self.with_count(self.count * repetitions)

    def with_count(self, count: int) -> Self:
        """The same mechanism, run `count` times in all."""
        changed: Self = replace(self, **{self.counted: count})
        return changed

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, with the kind under `event`."""
        return {"event": self.name, **asdict(self)}

    @staticmethod
    def from_dict(values: Mapping[str, object]) -> Event:
        """What `to_dict` wrote. Raises PrivacyError: an unknown kind, field or range."""
        made = _EVENTS.get(str(values.get("event")))
        if made is None:
            remedy = f"one of {sorted(_EVENTS)}"
            raise PrivacyError("unknown kind of event", "event", values.get("event"), remedy)
        given = {field: value for field, value in values.items() if field != "event"}
        expected = {field.name for field in fields(made)}
        if set(given) != expected:
            problem, remedy = f"fields of a {made.name} event", f"give exactly {sorted(expected)}"
            raise PrivacyError(problem, "event", sorted(set(given) ^ expected), remedy)
        return made(**given)  # every constructor checks its own values


@dataclass(frozen=True)
class GaussianEvent(Event):
    """`steps` adaptive sums of Poisson-sampled units, each with Gaussian noise of
    deviation `noise_multiplier`·C.

    Args:
        noise_multiplier: deviation over the norm bound C of one unit's contribution; > 0.
        sampling_rate: probability in (0, 1] with which each unit, on its own secret coin, enters a
            step. 1 is full participation.
        steps: how many sums are released; ≥ 1.
        contributions: by how many C the sum moves when a unit that entered the step contributes
            zero instead. 1 for sums of clipped contributions; 2 where one unit changes the content
            of a clipped bin. Two Gaussian releases from one sample are one event with noise
            multiplier (σ₁⁻² + σ₂⁻²)^(-1/2).

    **Guarantee.** Under zero-out and add-remove each step is dominated by the Poisson-subsampled
    Gaussian (q, σ/contributions); under replace-one by the pair (1−q)N(0) + qN(±contributions/σ);
    see `accounting`.

    **Assumes.** A fresh independent coin for every unit and step; coins and noise stay secret;
    constant normalisers; a unit's contribution depends on itself and on released values only.

    **Not covered.** Shuffled or fixed-size batches; coins that several steps share, such as a
    client's coin over its local steps.
    """

    name: ClassVar[str] = "gaussian"
    counted: ClassVar[str] = "steps"

    noise_multiplier: float
    sampling_rate: float
    steps: int
    contributions: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "noise_multiplier", "contributions")
        _positive(self, "sampling_rate", most=1.0)
        _whole(self, "steps")

    @property
    def effective_noise(self) -> float:
        """Noise deviation over the most that one unit moves the sum under zero-out."""
        return self.noise_multiplier / self.contributions


@dataclass(frozen=True)
class IntegerEvent(Event):
    """`releases` sums of integer vectors with integer noise that `parties` clients added in
    equal shares.

    Args:
        kind: the noise, `skellam` or `discrete_gaussian`.
        variance: total variance a coordinate of the shares that are counted on, in squared integer
            units; > 0.
        l2: the longest vector one unit contributes, in integer units after rounding: the
            sensitivity under zero-out.
        l1: the same in the 1-norm.
        l2_replace: the farthest two contributions of one unit are apart: the sensitivity
            under replace-one.
        l1_replace: the same in the 1-norm.
        parties: honest clients whose shares make up `variance` (n_min minus the colluders); ≥ 1.
        dimension: coordinates of one release; ≥ 1.
        releases: ≥ 1.
        tv_per_draw: how far the sampler's law is from the named one, in total variation a draw; all
            draws are summed into δ, times 1 + e^ε. The default is what `integer_noise` proves of
            its tables.

    **Guarantee.** Every release satisfies the Rényi bounds of `integer_curves` at the sensitivity
    of the adjacency that is charged.

    **Assumes.** At least `parties` honest clients added their shares, also those that dropped out
    later; every coordinate is noised.

    **Not covered.** Add-remove of a client: an absent client takes its share of the noise along.
    """

    name: ClassVar[str] = "integer"
    counted: ClassVar[str] = "releases"

    kind: Literal["skellam", "discrete_gaussian"]
    variance: float
    l2: float
    l1: float
    l2_replace: float
    l1_replace: float
    parties: int
    dimension: int
    releases: int
    tv_per_draw: float = 2.0**-99

    def __post_init__(self) -> None:
        if self.kind not in ("skellam", "discrete_gaussian"):
            remedy = "skellam or discrete_gaussian"
            raise PrivacyError("unknown integer noise", "kind", self.kind, remedy)
        _positive(self, "variance", "l2", "l1", "l2_replace", "l1_replace")
        _whole(self, "parties", "dimension", "releases")
        _number(self, "tv_per_draw", least=0.0, most=1.0)
        for shorter, longer in (("l2", "l1"), ("l2_replace", "l1_replace")):
            if getattr(self, longer) < getattr(self, shorter):
                remedy = "no 1-norm is below its 2-norm"
                raise PrivacyError(f"below {shorter}", longer, getattr(self, longer), remedy)

    def own_share(self) -> IntegerEvent:
        """What protects from whoever sees this client's upload alone: its own noise share."""
        return replace(self, variance=self.variance / self.parties, parties=1)


@dataclass(frozen=True)
class PureEvent(Event):
    """`releases` of an ε-DP mechanism: exponential mechanism or randomised response.

    Args:
        epsilon: pure ε of one release, under the adjacency that will be charged; > 0.
        bounded_range: True for the exponential mechanism, whose loss ranges over an interval of
            length ε, so that it is ε²/8-zCDP.
        releases: ≥ 1.

    **Guarantee.** ε-DP for one release; in Rényi terms the curve of randomised response, or αε²/8
    for a bounded range if smaller.

    **Assumes.** Scores are clipped sums with a constant normaliser, so that zero-out, add-remove
    and replace-one move them equally.

    **Not covered.** Which units took part: randomised response shows who answered.
    """

    name: ClassVar[str] = "pure"
    counted: ClassVar[str] = "releases"

    epsilon: float
    bounded_range: bool
    releases: int

    def __post_init__(self) -> None:
        _positive(self, "epsilon")
        _whole(self, "releases")
        if not isinstance(self.bounded_range, bool):
            raise PrivacyError(
                "not a truth value", "bounded_range", self.bounded_range, "true or false"
            )


_KINDS: tuple[type[Event], ...] = (GaussianEvent, IntegerEvent, PureEvent)
_EVENTS = {made.name: made for made in _KINDS}


def _positive(event: Event, *names: str, most: float = math.inf) -> None:
    for name in names:
        _number(event, name, most=most)
        if getattr(event, name) == 0:
            remedy = "a mechanism without noise or without reach is no release"
            raise PrivacyError("must be above zero", name, 0, remedy)


def _number(event: Event, name: str, *, least: float = 0.0, most: float = math.inf) -> None:
    """Check a real field and store it as a float, so that 1 and 1.0 are the same event."""
    value = getattr(event, name)
    real = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    if not real or not least <= float(value) <= most:
        remedy = f"a finite number in [{least:g}, {most:g}]"
        raise PrivacyError("not a number in its range", name, value, remedy)
    object.__setattr__(event, name, float(value))


def _whole(event: Event, *names: str) -> None:
    for name in names:
        value = getattr(event, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise PrivacyError("not a count", name, value, "a whole number of at least 1")
        object.__setattr__(event, name, int(value))
