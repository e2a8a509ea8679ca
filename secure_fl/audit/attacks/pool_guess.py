"""Guessing which pool a client chose, channel by channel.

Headers, order and lengths of messages must carry nothing: real parties run rounds, coins choose
their pools, and an observer learns from half of the clients what each kind of message means and
guesses the other half's. A choice that is charged for may be guessed as often as its ε allows:
`rates.allowed_guesses`. The time that an upload takes is measured and claimed nowhere; released
models, and exact counts where everybody else colludes, give choices away, and are claimed nowhere
either: what they give is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from secure_fl.audit.attacks.pool_choices import Guessed, from_choice, from_counts
from secure_fl.audit.attacks.pool_messages import Sent, Watched, watch
from secure_fl.audit.attacks.pool_models import from_models
from secure_fl.audit.attacks.rates import allowed_guesses, lowest_share, share
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.privacy.claims import Adversary

FALSE_ALARM = 1e-3
_CHANNELS = 4
"""Tests that may each be a false alarm: messages, two of counts, a released choice."""
_MESSAGES = {Depth.MINUTES: 48, Depth.HOUR: 480, Depth.NIGHT: 4800}
"""Clients' messages of a round that are watched, at least, in whole rounds."""

_COUNTS = {Depth.MINUTES: 200, Depth.HOUR: 10_000, Depth.NIGHT: 100_000}
_CHOICES = {Depth.MINUTES: 40, Depth.HOUR: 1000, Depth.NIGHT: 10_000}


@dataclass(frozen=True)
class _Found:
    """One channel's figures, and what is wrong where it gives away more than it may, or why
    it was not tried to its end.
    """

    figures: tuple[Figure, ...] = ()
    wrong: str = ""
    untried: str = ""


class PoolGuess:
    """The check; see the module.

    **Guarantee**: where messages do not depend on choices, and choices cost what is charged, it
    says broken with probability `FALSE_ALARM` at most: guesses are of independent coins.
    **Assumes**: one process of one machine for the figure of times. **Not covered**: what follows
    from counts that are opened exactly, from models, and from times: none is claimed.
    """

    name = "pool-guess"
    tried = "whether messages, counts, released choices and models tell a client's pool"

    def refused(self, subject: Subject) -> str:
        """There is nothing to choose."""
        pools = subject.config.pools
        if not pools.enabled or pools.count < 2:
            return "the run has no pools to choose from"
        return ""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        clients, config = subject.config.partition.clients, subject.config
        seconds = max(_MESSAGES[depth], clients) * (0.04 + 1e-3 * clients)
        if config.privacy.unit == "client":
            seconds += _COUNTS[depth] * clients * 3e-4
        return seconds + (0.03 * _CHOICES[depth] if config.privacy.unit == "example" else 0.0)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        rounds = -(-_MESSAGES[depth] // len(subject.clients))
        found = [self._messages(subject, rounds, seed)]
        progress(0.4)
        charged: Sequence[Callable[[], list[Guessed]]] = (
            partial(from_counts, subject, _COUNTS[depth], seed, lambda d: progress(0.4 + 0.3 * d)),
            partial(from_choice, subject, _CHOICES[depth], seed, lambda d: progress(0.7 + 0.3 * d)),
        )
        found += [_charged(each, subject) for guess in charged for each in guess()]
        found.append(_models(subject, seed))
        wrong = [each.wrong for each in found if each.wrong]
        ended, unit = found[0].untried, subject.config.privacy.unit
        said = "messages tell nothing, and no charged choice is guessed beyond its claim"
        verdict: Verdict = "broken" if wrong else "not tried" if ended else "held"
        return Outcome(
            self.name,
            self.tried,
            str(Adversary.SERVER),
            "" if unit == "none" else unit,
            verdict,
            "; ".join(wrong) or ended or said,
            FALSE_ALARM,
            figures=tuple(figure for each in found for figure in each.figures),
        )

    def _messages(self, subject: Subject, rounds: int, seed: int) -> _Found:
        seen, pools = watch(subject, rounds, seed), subject.config.pools.count
        if not seen.sent:
            return _Found(untried=f"the parties sent nothing: {seen.ended}")
        right, trials = _learnt(seen)
        kinds = defaultdict[int, set[object]](set)
        for each in seen.sent:
            kinds[each.round].add(each.shape)
        most = max(len(each) for each in kinds.values())
        told = share(right, trials)
        figures = [
            Figure("pool guessed from headers, order and lengths", *told, 1 / pools, 1 / pools),
            Figure("kinds of messages in a round, by headers, order and lengths", most, limit=1.0),
        ]
        figures += _by_time(seen, pools)
        if lowest_share(right, trials, FALSE_ALARM / _CHANNELS) > 1 / pools:
            wrong = f"messages tell {right} of {trials} choices among {pools} pools"
            return _Found(tuple(figures), wrong)
        return _Found(tuple(figures), untried=seen.ended)


POOL_GUESS = PoolGuess()


def _learnt(seen: Watched) -> tuple[int, int]:
    """Right guesses, and all of them: what a message of a shape means is learnt from clients of
    even number, round by round, and tried on the others.
    """
    meaning = defaultdict[object, Counter[int]](Counter)
    for each in _half(seen.sent, 0):
        meaning[each.round, each.shape][seen.choices[each.client, each.round]] += 1
    guessed = [
        (meaning[each.round, each.shape].most_common(1) or [(0, 0)])[0][0]
        == seen.choices[each.client, each.round]
        for each in _half(seen.sent, 1)
    ]
    return sum(guessed), len(guessed)


def _half(sent: Iterable[Sent], odd: int) -> list[Sent]:
    return [each for each in sent if each.client % 2 == odd]


def _by_time(seen: Watched, pools: int) -> list[Figure]:
    """The pool whose uploads took most nearly as long, by the other half of the clients."""
    took = defaultdict[int, list[float]](list)
    for each in _half(seen.sent, 0):
        took[seen.choices[each.client, each.round]].append(each.seconds)
    means = {pool: sum(each) / len(each) for pool, each in took.items()}
    others = _half(seen.sent, 1)
    if not others or not means:
        return []
    nearest = [
        min((abs(mean - each.seconds), pool) for pool, mean in means.items())[1] for each in others
    ]
    right = sum(
        guess == seen.choices[each.client, each.round]
        for guess, each in zip(nearest, others, strict=True)
    )
    told = share(right, len(others))
    return [Figure("pool guessed from the time an upload takes (not claimed)", *told, 1 / pools)]


def _charged(guessed: Guessed, subject: Subject) -> _Found:
    delta = subject.config.privacy.delta
    limit = allowed_guesses(guessed.epsilon, delta, guessed.alternatives)
    told, chance = share(guessed.right, guessed.trials), 1 / guessed.alternatives
    figure = Figure(f"guessed from {guessed.channel}", *told, chance, limit, "defence on")
    if lowest_share(guessed.right, guessed.trials, FALSE_ALARM / _CHANNELS) > limit:
        wrong = f"{guessed.channel}: {told.value:.1%} right, the charged ε allows {limit:.1%}"
        return _Found((figure,), wrong)
    return _Found((figure,))


def _models(subject: Subject, seed: int) -> _Found:
    seen, pools = from_models(subject, seed), subject.config.pools.count
    if seen is None:
        return _Found()
    told, known = share(seen.with_models, seen.clients), share(seen.without, seen.clients)
    name = "pool guessed knowing the client's kind of data (not claimed)"
    return _Found(
        (
            Figure(f"{name}, from released models", *told, 1 / pools),
            Figure(f"{name}, without any model", *known, 1 / pools),
        )
    )
