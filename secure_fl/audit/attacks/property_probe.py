"""What the released statistic and the sketch tell of a client's examples.

*One example*: of two that differ most in what they add, a coin decides which one the client has;
all its others are known. The likelier one is guessed, release after release. An ε for examples
allows so many right guesses and no more (`rates.allowed_guesses`), and the verdict is about that.

*Many examples*: the share of one class, or which of the known groups a client is in, guessed by a
linear probe that was trained on releases of other examples of the same law. Privacy of examples
hides none of this, and no run claims it; what noise leaves of it is shown beside what the bare sums
tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.attacks.property_releases import OfSketch, OfStatistic, Released
from secure_fl.audit.attacks.rates import Scores, allowed_guesses, lowest_share, share
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.partitions import ClientData
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.claims import Adversary
from secure_fl.seeds import derive_seed

FALSE_ALARM = 1e-3
_RELEASES = 2
"""Tests that may each be a false alarm: the statistic, the sketch."""
_TRIALS = {Depth.MINUTES: 100, Depth.HOUR: 2000, Depth.NIGHT: 20_000}
_SETS = {Depth.MINUTES: 60, Depth.HOUR: 600, Depth.NIGHT: 4000}
_SET, _PAIRS, _LITTLE, _MUCH = 32, 64, 0.1, 0.6


class PropertyProbe:
    """The check; see the module.

    **Guarantee**: a run whose releases cost what is charged is called broken with probability
    `FALSE_ALARM` at most: every release has noise and a coin of its own. **Assumes**: a first step
    is as later ones are. **Not covered**: properties of many examples, which no ε for examples
    hides.
    """

    name = "property-probe"
    tried = "whether what a client released of all its examples tells properties of them, or one"

    def refused(self, subject: Subject) -> str:
        """Nothing is released of a client's examples as a whole."""
        if not subject.config.noises_sketches and not OfStatistic.released_by(subject.factory):
            return "no statistic and no sketch is released with noise"
        return ""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 2 + (_TRIALS[depth] + 4 * _SETS[depth]) * 0.05

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        figures, wrong = list[Figure](), list[str]()
        client = max(subject.clients, key=lambda each: len(each.train))
        kinds = _kinds(subject, client, seed)
        for number, each in enumerate(kinds):
            right, limit = _one_example(each, client, _TRIALS[depth], subject, seed)
            told = share(right, _TRIALS[depth])
            name = f"one example guessed from {each.name}"
            figures.append(Figure(name, 1.0, chance=0.5, setting="defence off"))
            figures.append(Figure(name, *told, 0.5, limit, "defence on"))
            if lowest_share(right, _TRIALS[depth], FALSE_ALARM / _RELEASES) > limit:
                wrong.append(f"{each.name} tells {told.value:.1%}, its ε allows {limit:.1%}")
            progress((number + 0.5) / len(kinds))
            figures += _properties(each, client, subject.clients, _SETS[depth], seed)
            progress((number + 1) / len(kinds))
        verdict: Verdict = "broken" if wrong else "held"
        said = (
            "one example is guessed no better than is charged for; properties of many are not "
            "claimed"
        )
        return Outcome(
            self.name,
            self.tried,
            str(Adversary.COLLUSION),
            "example",
            verdict,
            "; ".join(wrong) or said,
            FALSE_ALARM,
            figures=tuple(figures),
        )


PROPERTY_PROBE = PropertyProbe()


def _kinds(subject: Subject, client: ClientData, seed: int) -> list[Released]:
    factory, found = subject.factory, list[Released]()
    statistic = OfStatistic.of(factory, client, seed)
    found += [] if statistic is None else [statistic]
    if factory.sketch.released is not None:
        found.append(OfSketch(factory, client))
    return found


def _one_example(
    released: Released, client: ClientData, trials: int, subject: Subject, seed: int
) -> tuple[int, float]:
    """Right guesses of a coin, and the share of them that is allowed."""
    train = client.train.with_labels() if released.sees_labels else client.train
    known = train.take(torch.arange(min(_PAIRS, len(train))))
    parts = released.parts(known)
    first, second = divmod(int(torch.cdist(parts, parts).argmax()), len(known))
    others = [each for each in range(len(known)) if each not in (first, second)]
    if isinstance(released, OfStatistic):
        others = others[:6]  # the sum of few is as noisy as that of many, and quicker
    worlds = [known.take(torch.tensor([each, *others])) for each in (first, second)]
    sums = [released.parts(world).sum(0) for world in worlds]
    middle, between = (sums[0] + sums[1]) / 2, sums[0] - sums[1]
    coins, right = np.random.default_rng(derive_seed(seed, "one example")).random(trials) < 0.5, 0
    for coin in coins:
        seen = released.released(worlds[0 if coin else 1])
        right += bool(float((seen - middle) @ between) > 0) == bool(coin)
    delta = subject.config.privacy.delta
    epsilon = epsilon_of([Charge(released.event, Adjacency.REPLACE_ONE)], delta)
    return right, allowed_guesses(epsilon, delta, 2)


# Properties of many examples


class _Law(NamedTuple):
    """One value of a property: examples to learn from, others to try on, and how either set is
    drawn.
    """

    learnt: Dataset
    tried: Dataset
    drawn: Callable[[Dataset, np.random.Generator], Tensor]


def _properties(
    released: Released, client: ClientData, clients: Sequence[ClientData], sets: int, seed: int
) -> list[Figure]:
    """Figures of every property that these clients' data have."""
    peers = [each for each in clients if each.group == client.group]
    train = join([each.train for each in peers], "peers")
    found: dict[str, list[_Law]] = {}
    if train.labelled and client.test.labelled and client.test.classes >= 2:
        label = int(client.test.y[client.test.y >= 0].mode().values)
        found["share of one class"] = [
            _Law(client.test, train, _with_share(label, part)) for part in (_LITTLE, _MUCH)
        ]
    groups = sorted({each.group for each in clients if each.group is not None})
    if len(groups) > 1:
        of = {group: next(each for each in clients if each.group == group) for group in groups}
        found["group of the client"] = [_Law(of[g].test, of[g].train, _any) for g in groups]
    made = list[Figure]()
    for name, laws in found.items():
        bare, noised = _probed(released, laws, sets, derive_seed(seed, name))
        title, chance = f"{name} guessed from {released.name} (not claimed)", 1 / len(laws)
        made.append(Figure(title, *share(bare, sets), chance, setting="defence off"))
        made.append(Figure(title, *share(noised, sets), chance, setting="defence on"))
    return made


def _with_share(label: int, part: float) -> Callable[[Dataset, np.random.Generator], Tensor]:
    """Draws a set of which such a share has the label."""

    def drawn(data: Dataset, rng: np.random.Generator) -> Tensor:
        inside = data.y.numpy() == label
        many = rng.binomial(_SET, part)
        chosen = [
            rng.choice(np.flatnonzero(where), size)
            for where, size in ((inside, many), (~inside, _SET - many))
        ]
        return torch.from_numpy(np.concatenate(chosen))

    return drawn


def _any(data: Dataset, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.choice(len(data), _SET))


def _probed(released: Released, laws: Sequence[_Law], sets: int, seed: int) -> tuple[int, int]:
    """Right guesses of a linear probe in so many sets: from bare sums, and as the run releases."""
    rng, deviation = np.random.default_rng(seed), released.deviation
    learnt = [released.parts(law.learnt) for law in laws]
    known = rng.integers(len(laws), size=20 * len(laws) + sets)
    sums = [learnt[k][laws[k].drawn(laws[k].learnt, rng)].sum(0).numpy() for k in known]
    without = _Probe.of(np.stack(sums), known, 1e-3)
    within = _Probe.of(np.stack(sums), known, deviation**2)
    truth, right = rng.integers(len(laws), size=sets), [0, 0]
    for k in truth:
        data = laws[k].tried.take(laws[k].drawn(laws[k].tried, rng))
        right[0] += without.guess(released.parts(data).sum(0).numpy()) == k
        right[1] += within.guess(released.released(data).numpy()) == k
    return right[0], right[1]


@dataclass(frozen=True)
class _Probe:
    """A linear classifier by least squares. A ridge of the noise's variance makes it the best one,
    on average, for inputs with that noise.
    """

    middle: Scores
    weights: Scores
    base: Scores

    @classmethod
    def of(cls, rows: Scores, labels: np.ndarray, variance: float) -> _Probe:
        middle, base = rows.mean(0), np.eye(labels.max() + 1)[labels]
        centred = rows - middle
        gram = centred @ centred.T + len(rows) * variance * np.eye(len(rows))
        weights = centred.T @ np.linalg.solve(gram, base - base.mean(0))
        return cls(middle, weights, base.mean(0))

    def guess(self, row: Scores) -> int:
        return int(np.argmax((row - self.middle) @ self.weights + self.base))
