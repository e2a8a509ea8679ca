"""Is the private choice of a pool as private as it is charged?

A client that is protected by its own noise alone shows which pool it takes; it draws it by the
exponential mechanism (`privacy.choice`), which is charged as ε-DP with a bounded range.

**Exactly.** The mechanism's own probabilities, on scores that it makes of losses, for neighbours
that are searched for: no log-probability may move by more than ε, nor one against another.

**By drawing.** The run's own client chooses again and again between pools whose losses are given,
on both sides of the worst pairs of neighbours: one example says as much as it can for a pool, or
against it. Frequencies are held against the law that is claimed, and a lower bound on ε comes from
exact limits of two of them (Clopper and Pearson 1934): each holds with its share of the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from secure_fl.audit.bounds.result import Bound, Vector
from secure_fl.audit.check import Depth
from secure_fl.audit.checks.noise_law import chi_square
from secure_fl.audit.checks.verdicts import SHARE, Findings
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.data.dataset import Dataset
from secure_fl.federation.asks import PoolScore, TrainPool
from secure_fl.federation.factory.example_plan import choice_of, chooses_by_loss
from secure_fl.federation.local.local import Local
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import bounded_score
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.events import Event, PureEvent
from secure_fl.privacy.noise import NoiseSource

_MOST_ROUNDS = 16
"""Over the whole run, in which a client chooses, and is asked what it would charge."""
_DRAWS = {Depth.MINUTES: 2500, Depth.HOUR: 100_000, Depth.NIGHT: 1_000_000}
_SEARCHED = {Depth.MINUTES: 300, Depth.HOUR: 3000, Depth.NIGHT: 30_000}
_GAPS = (2.0, 0.0)
"""By how much the first pool's utility is below the others', halfway between the neighbours."""
_ODD = (math.nan, math.inf, -math.inf, 1e30, -1e30)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choices:
    """The check `choices`."""

    name: str = "choices"
    tried: str = "whether the pool that a client chose tells if an example is among the client's"

    def refused(self, subject: Subject) -> str:
        """Where nothing is chosen by losses with noise."""
        chooses = chooses_by_loss(subject.config)
        return "" if chooses else "no pool is chosen by the exponential mechanism"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the number of draws."""
        return 3 + (2 * len(_GAPS) + 1) * _DRAWS[depth] * 4e-4

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """Search the exact law, then draw."""
        found = Findings()
        _exactly(subject, _SEARCHED[depth], np.random.default_rng(seed), found)
        _by_drawing(subject, _DRAWS[depth], seed, found, progress)
        return found.outcome(
            self,
            Adversary.MODEL,
            "example",
            f"{2 * len(_GAPS) * _DRAWS[depth]} choices follow the law that is charged",
        )


# Exactly


def _exactly(subject: Subject, pairs: int, rng: np.random.Generator, found: Findings) -> None:
    """The largest move of a log-probability, and of one against another, over neighbours."""
    config, worst, widest = subject.config, 0.0, 0.0
    for number in range(pairs):
        size = int(rng.integers(1, 60)) if number else 400
        choice, pools = choice_of(config, size), config.pools.count
        previous = int(rng.integers(pools)) if number % 2 else None
        losses = rng.random((pools, size)) * choice.bound * rng.choice([0.1, 1.0, 2.0])
        other = losses.copy()
        other[:, 0] = rng.choice([0.0, choice.bound, *_ODD, 0.5], size=pools)
        losses[:, 0] = rng.choice([0.0, choice.bound], size=pools)
        if number == 0:  # the worst pair there is: all for one pool but the first, and one turns
            losses[:], other[:], losses[0], other[0] = 0.0, 0.0, choice.bound, choice.bound
            losses[:, 0], other[:, 0] = other[:, 1], losses[:, 1]
            losses[0, 0], losses[1:, 0] = 0.0, choice.bound
        laws = [
            np.log(choice.probabilities(_scores(each, choice.bound, size), previous))
            for each in (losses, other[:, number % 3 == 0 :])
        ]
        moved = laws[0] - laws[1]
        worst, widest = max(worst, np.abs(moved).max()), max(widest, np.ptp(moved))
    limit = config.privacy.choice_epsilon
    found.exact(worst <= limit + _ROUNDING, f"a log-probability moves by {worst:.4g}")
    found.exact(widest <= limit + _ROUNDING, f"log-probabilities range over {widest:.4g}")
    name = "largest move of a choice's log-probability by one example, exactly"
    found.figures.append(Figure(name, worst, limit=limit))


def _scores(losses: Vector, bound: float, size: int) -> list[float]:
    return [bounded_score(torch.from_numpy(row), bound, size) for row in losses]


# By drawing


class _Untested(Local):
    """A client's own, whose choice is not tested."""

    def tested(
        self, pools: PoolSet, choice: int, position: int, losses: tuple[float, ...] = ()
    ) -> PoolScore:
        return PoolScore(choice, (), 0.0, None)


class _Chooser(ExampleLevel):
    """A client of the run whose losses are given, `[K, N]`."""

    given: Tensor

    def _losses(self, pools: PoolSet, index: int, data: Dataset) -> Tensor:
        return self.given[index]


@dataclass(frozen=True)
class _Choosing:
    """A client of the run that chooses.

    Attributes:
        local: its own.
        settings: ε, the losses' bound, the number of its examples, and of pools.
    """

    local: Local
    epsilon: float
    bound: float
    size: int
    pools: int

    @classmethod
    def of(cls, subject: Subject) -> _Choosing:
        """The client that has most examples to choose by."""
        bench, privacy = Workbench(subject.factory), subject.config.privacy
        locals_ = [_Untested(client, bench) for client in subject.clients]
        local = max(locals_, key=lambda one: len(_by(one)))
        size = max(1, len(_by(local)))
        pools = subject.config.pools.count
        return cls(local, privacy.choice_epsilon, privacy.choice_bound, size, pools)

    @property
    def ask(self) -> TrainPool:
        """The first round's, with models of nothing."""
        return TrainPool(0, PoolSet(torch.zeros(0), torch.zeros(self.pools, 1)))

    def chooser(self) -> _Chooser:
        """The client's protection as in a new run, with noise of its own."""
        noise = Releasing(self.local.data.id, NoiseSource.fresh(), ReleaseBox(None))
        return _Chooser(self.local, noise)

    def charged(self, number: int) -> list[Event]:
        """What a client that has not chosen yet says before it chooses in a round."""
        releases = self.chooser().releases(replace(self.ask, round=number), 0)
        return [release.event for release in releases if release.purpose == "choice"]

    def losses(self, gap: float, *, there: bool) -> Tensor:
        """Losses `[K, N]` on one side of a pair: one example is for the first pool, or against it.

        `gap`: of utilities, or as much of it as losses within their bound give.
        """
        rate = self.epsilon * self.size / (2 * self.bound)
        base = min(gap / rate * self.size / max(1, self.size - 1), self.bound)
        made = torch.zeros(self.pools, self.size, dtype=torch.float64)
        made[0, 1:] = base
        made[0, 0] = -math.inf if there else math.nan
        made[1:, 0] = 1e30 if there else -1e30
        return made

    def law(self, losses: Tensor, previous: int | None = None) -> Vector:
        """The law that is claimed, from its formula: exp(−ε·n·score/(2b)), the score of the
        previous choice lower by the public bonus.
        """
        means = losses.nan_to_num(nan=self.bound).clamp(0, self.bound).mean(1).numpy()
        if previous is not None:
            means[previous] -= self.local.facts.config.privacy.choice_stay
        weights = np.exp(-self.epsilon * self.size * (means - means.min()) / (2 * self.bound))
        return np.asarray(weights / weights.sum())

    def counts(
        self, losses: Tensor, draws: int, previous: int | None = None, number: int = 0
    ) -> Vector:
        """How often each pool is chosen in a round, as a first choice or after a `previous` one."""
        counts, ask = np.zeros(self.pools, dtype=int), replace(self.ask, round=number)
        for _ in range(draws):
            chooser = self.chooser()
            if previous is not None:
                chooser._choices[0] = previous
            chooser.given = losses
            counts[chooser.choose(ask, 0).choice] += 1
        return counts


def _by(local: Local) -> Dataset:
    """The examples that a client chooses by."""
    data = local.choosing_examples
    return data.with_labels() if data.labelled else data


def _by_drawing(
    subject: Subject, draws: int, seed: int, found: Findings, progress: Callable[[float], None]
) -> None:
    """Choose again and again on both sides of pairs of neighbours, and compare."""
    choosing, error, limits = _Choosing.of(subject), 10 * SHARE, list[float]()
    for number, gap in enumerate(_GAPS):
        pair = [choosing.losses(gap, there=there) for there in (True, False)]
        counts = [choosing.counts(losses, draws) for losses in pair]
        for losses, seen in zip(pair, counts, strict=True):
            far = chi_square(seen, draws * choosing.law(losses))
            found.test(far, "choices do not follow the exponential mechanism that is charged")
        limits.append(_at_least(counts, error / len(_GAPS)))
        progress((number + 1) / len(_GAPS))
        if found.broken:
            break
    again, previous = choosing.losses(_GAPS[0], there=True), choosing.pools - 1
    rounds, every = subject.config.pools.rounds, subject.config.privacy.choice_every
    law, least = choosing.law(again, previous), 1.0
    late = [every * number for number in spread(max(1, (rounds - 1) // every), _MOST_ROUNDS, seed)]
    for number in late:
        part = -(-draws // len(late))
        seen = choosing.counts(again, part, previous, number + every)
        least = min(least, chi_square(seen, part * law))
    found.test(least * len(late), "later choices do not follow the mechanism that is charged")
    each = [choosing.charged(number) for number in spread(rounds, _MOST_ROUNDS, seed)]
    charged = [event for events in each for event in events]
    claimed = max((event.epsilon for event in charged if isinstance(event, PureEvent)), default=0.0)
    found.exact(all(len(events) == 1 for events in each), "a choice is not charged")
    found.exact(claimed == choosing.epsilon, "a choice is charged as another than it is")
    bound = Bound("frequencies of choices", max(limits), 0.0, 1 - error, ())
    found.game((bound,), claimed, 1 - error, "cluster")


def _at_least(counts: list[Vector], error: float) -> float:
    """A lower bound on the largest log-ratio of two laws, from counts of draws from either."""
    share = error / (4 * len(counts[0]))
    low, high = [], []
    for seen in counts:
        rest = seen.sum() - seen
        low.append(np.where(seen > 0, betaincinv(np.maximum(seen, 1), rest + 1, share), 0.0))
        high.append(np.where(rest > 0, betaincinv(seen + 1, np.maximum(rest, 1), 1 - share), 1.0))
    with np.errstate(divide="ignore"):
        return float(max(0.0, np.log(low[0] / high[1]).max(), np.log(low[1] / high[0]).max()))


CHOICES = Choices()
