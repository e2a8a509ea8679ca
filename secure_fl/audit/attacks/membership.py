"""Membership inference on what a run trains: was this example trained on?

Two settings of one game, in which coins decide what one client trains on. *Defence off*: the same
model and objective are trained without any protection until they know their examples by heart: an
attack that fails there is worthless, and then nothing is said of the run. *Defence on*: the client
answers the run's own questions with the run's own mechanism, for as many rounds as the depth
allows. The claim that is held against this is what these rounds' releases cost at replace-one.

The verdict comes from guesses about coins (`bounds.one_run`): more right ones than the claim
allows, whoever the scores depend on each other through the one model. That is the statement that a
true-positive rate is above e^ε·FPR + δ, without taking scores for independent; rates are shown with
exact intervals beside it.

A finished folder's models are looked at too: all training examples against the test examples of
the run's own deal. Where the data bring a test split of their own, the two may differ in other ways
than membership; an untrained encoder shows by how much. No verdict rests on it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from secure_fl.audit.attacks.membership_game import Attacked, Slots, Trains, attack
from secure_fl.audit.attacks.membership_models import released_figures
from secure_fl.audit.attacks.membership_replay import Moved, Phase, Replay
from secure_fl.audit.attacks.rates import Scores, allowed_true_positives, area, true_positives
from secure_fl.audit.bounds import Bound, one_run_bound
from secure_fl.audit.bounds.guesses import Outcome as Guesses
from secure_fl.audit.check import Depth
from secure_fl.audit.game import Coins, SealedAssignment
from secure_fl.audit.outcome import Figure, Outcome, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import TrainingError
from secure_fl.privacy.accounting import epsilon_of
from secure_fl.privacy.claims import Adversary
from secure_fl.seeds import derive_seed

FALSE_ALARM = 1e-3
RATES = (0.01, 0.001)
_FEWEST = 8
_SMALL = 1e-8
"""δ at which guesses are held against what the same releases cost: k guesses may be known with
probability k·δ, which at a usual δ is more than a false alarm may have.
"""


@dataclass(frozen=True)
class _Effort:
    """How thorough a depth is.

    Attributes:
        games: clients that are attacked, one by one.
        shadowed: of these, those against whom shadows are trained.
        shadows: for each.
        slots: of a client, at most.
        examples: that are trained on in a game, at most: of a large client some alone.
        rounds: of each phase that are replayed, at most.
        epochs: without protection.
    """

    games: int
    shadowed: int
    shadows: int
    slots: int
    examples: int
    rounds: int
    epochs: int

    @property
    def trainings(self) -> int:
        """With one kind of protection."""
        return self.games + self.shadowed * self.shadows


_EFFORTS = {
    Depth.MINUTES: _Effort(3, 1, 4, 160, 320, 1, 40),
    Depth.HOUR: _Effort(12, 3, 16, 512, 2048, 5, 200),
    Depth.NIGHT: _Effort(50, 8, 64, 2048, 1 << 20, 1 << 20, 1000),
}


@dataclass(frozen=True)
class _Game:
    """All that attacks made of one setting, over all games.

    Attributes:
        attacked: every attack with the coins of the slots that it was tried on, joined over games.
        epsilon: that is claimed of what was released, at the run's δ and at `_SMALL`.
    """

    attacked: tuple[tuple[Attacked, Coins], ...] = field(repr=False)
    epsilon: tuple[float, float]


class Membership:
    """The check; see the module.

    **Guarantee**: a run that keeps what its releases are charged for is called broken with
    probability `FALSE_ALARM` at most, over the coins. **Assumes**: nothing about scores; the coins
    are the operating system's. **Not covered**: what a held verdict cannot show: with k slots no
    attack shows more than about ln(k/10), and rounds beyond those replayed are not tried.
    """

    name = "membership"
    tried = "whether a trained model, or a client's updates, tell which examples it was trained on"

    def refused(self, subject: Subject) -> str:
        """Nothing is trained on clients' examples, or one client alone makes no game."""
        config = subject.config
        if not config.pretrain.trains and not config.pools.enabled:
            return "no model of this run is trained on clients' examples"
        return ""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the number of trainings, with and without defence: two seconds each for a few epochs
        of a small model, and what it takes to look at each.
        """
        effort, config = _EFFORTS[depth], subject.config
        rounds = sum(min(effort.rounds, each.rounds) for each in (config.pretrain, config.pools))
        games = min(effort.games, config.partition.clients or effort.games)
        trainings = games + min(games, effort.shadowed) * effort.shadows
        return 2 * trainings * (2 + effort.epochs / 40 + rounds / 2)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        effort = _EFFORTS[depth]
        clients = sorted(subject.clients, key=lambda each: -len(each.train))[: effort.games]
        replays = [
            each for each in (_replay(subject, c.id, effort) for c in clients) if each.phases
        ]
        sizes = effort.slots, seed, effort.examples
        played = [(each, Slots.of(each.client, *sizes)) for each in replays]
        games = [(each, slots) for each, slots in played if len(slots) >= _FEWEST]
        if not games:
            return self._untried("no client has examples enough to train on and to leave out")
        steps, done = 2 * effort.trainings, 0

        def heard() -> None:
            nonlocal done
            done += 1
            progress(min(1.0, done / steps))

        try:
            off, on = (
                _played(games, effort, seed, defended=defended, heard=heard)
                for defended in (False, True)
            )
        except TrainingError as error:
            return self._untried(f"training ended early: {error.problem}")
        looked = released_figures(subject, seed, most=1000 * effort.games)
        made = self._outcome(subject.config, off, on)
        return replace(made, figures=(*made.figures, *looked))

    def _untried(self, said: str) -> Outcome:
        against = str(Adversary.COLLUSION)
        return Outcome(self.name, self.tried, against, "example", "not tried", said)

    def _outcome(self, config: FederationConfig, off: _Game, on: _Game) -> Outcome:
        private, delta = config.privacy.unit != "none", config.privacy.delta
        shown, bare = _bounds(on, min(delta, _SMALL)), _bounds(off, 0.0)
        best, without = _largest(shown), _largest(bare)
        epsilon, tested = on.epsilon
        setting = "defence on" if private else ""
        slots = float(max(len(coins) for _, coins in on.attacked))
        figures = [
            Figure("coins: slots of which one candidate was trained on", slots),
            *_figures(off, "defence off", None),
            Figure("ε shown", bare[without].epsilon, setting="defence off"),
            *_figures(on, setting, (epsilon, delta) if private else None),
            Figure(
                "ε shown", shown[best].epsilon, limit=tested if private else None, setting=setting
            ),
        ]
        verdict, said = _said(shown[best], bare[without], tested, private)
        details = {**shown[best].details, "claimed": tested}
        bounds = (replace(shown[best], details=details),) if private else ()
        return Outcome(
            self.name,
            self.tried,
            str(Adversary.COLLUSION),
            "example",
            verdict,
            said,
            FALSE_ALARM if private else 0.0,
            bounds,
            tuple(figures),
        )


MEMBERSHIP = Membership()


def _said(shown: Bound, bare: Bound, claimed: float, private: bool) -> tuple[Verdict, str]:
    """The verdict on the best bounds, as the run trains and without protection, and why."""
    if private and shown.epsilon > claimed:
        held_to = f"claimed {claimed:.3g} at δ = {shown.delta:g}"
        return "broken", f"{shown.method} shows ε ≥ {shown.epsilon:.3g}, {held_to}"
    if bare.epsilon == 0:
        return "not tried", "no attack succeeds even without any protection"
    said = f"the best attack shows ε ≥ {shown.epsilon:.3g} as the run trains"
    said += f" (claimed: {claimed:.3g} at δ = {shown.delta:g})" if private else " (none is claimed)"
    said += f", and ε ≥ {bare.epsilon:.3g} without protection ({bare.method})"
    if private and bare.epsilon <= claimed:
        said += ": at this depth it could not show a breach of that claim, even without any noise"
    return "held", said


def _replay(subject: Subject, number: int, effort: _Effort) -> Replay:
    config = subject.config
    rounds: dict[Phase, int] = {
        "pretrain": min(effort.rounds, config.pretrain.rounds),
        "cluster": min(effort.rounds, config.pools.rounds),
    }
    return Replay(subject.factory, subject.clients[number], rounds, effort.epochs)


def _played(
    games: Sequence[tuple[Replay, Slots]],
    effort: _Effort,
    seed: int,
    *,
    defended: bool,
    heard: Callable[[], None],
) -> _Game:
    """One setting of every game: train by sealed coins, score, open."""
    found, claimed = defaultdict[str, list[tuple[Scores, Coins]]](list), [(0.0, 0.0)]
    for number, (replay, slots) in enumerate(games):
        assignment = SealedAssignment.sealed(len(slots))
        own = derive_seed(seed, "membership", replay.client.id)
        data = slots.trained(assignment.there)
        trains: Trains = partial(_open, replay, own)
        released = trains(data) if not defended else {}
        if defended:
            released, charged = replay.defended(data)
            delta = replay.factory.facts.config.privacy.delta
            cost, strict = (epsilon_of(charged, at) for at in (delta, min(delta, _SMALL)))
            claimed.append((cost, strict) if charged else (math.inf, math.inf))
            trains = partial(_defended, replay)
        heard()
        shadows = effort.shadows if number < effort.shadowed else 0
        made = attack(replay, slots, released, shadows, trains, own, heard)
        coins = assignment.open(made[0].by_slot)
        for each in made:
            found[each.name].append((each.scores, coins))
    return _Game(tuple(_joined(name, each) for name, each in found.items()), max(claimed))


def _open(replay: Replay, seed: int, data: Dataset) -> Mapping[Phase, Moved]:
    return replay.open(data, seed)


def _defended(replay: Replay, data: Dataset) -> Mapping[Phase, Moved]:
    return replay.defended(data)[0]


def _joined(name: str, games: Sequence[tuple[Scores, Coins]]) -> tuple[Attacked, Coins]:
    """One attack over all games in which it was made: first candidates, then second ones."""
    first, second = zip(*(np.split(scores, 2) for scores, _ in games), strict=True)
    coins = np.concatenate([each for _, each in games])
    return Attacked(name, np.concatenate([*first, *second])), coins


def _bounds(game: _Game, delta: float) -> dict[str, Bound]:
    """On ε from below, by attack; all hold together but for the false-alarm rate."""
    confidence = 1 - FALSE_ALARM / len(game.attacked)
    made = {}
    for each, coins in game.attacked:
        counts = (len(coins), -(-len(coins) // 4))
        guesses = [_guessed(each.by_slot, coins, count) for count in counts]
        found = one_run_bound(guesses, delta, confidence)
        made[each.name] = replace(found, method=f"one run: {each.name}")
    return made


def _guessed(scores: Scores, coins: Coins, count: int) -> Guesses:
    """So many guesses, of the surest slots: the first candidate is in where the score is positive,
    which takes scores alone.
    """
    surest = np.argsort(-np.abs(scores), kind="stable")[:count]
    return Guesses(len(coins), count, int(((scores > 0) == coins)[surest].sum()))


def _largest(bounds: dict[str, Bound]) -> str:
    return max(bounds, key=lambda name: bounds[name].epsilon)


def _figures(game: _Game, setting: str, claim: tuple[float, float] | None) -> list[Figure]:
    """Area, and true positives where false ones are few, of every attack on all candidates."""
    made = list[Figure]()
    for each, coins in game.attacked:
        inside = np.concatenate([coins, ~coins])
        members, others = each.scores[inside], each.scores[~inside]
        made.append(Figure(f"AUC: {each.name}", *area(members, others), 0.5, setting=setting))
        for rate in RATES:
            if rate * len(others) >= 1:
                limit = None if claim is None else allowed_true_positives(*claim, rate)
                name = f"true positives at {rate:.1%} false ones: {each.name}"
                found = true_positives(members, others, rate)
                made.append(Figure(name, *found, rate, limit, setting))
    return made
