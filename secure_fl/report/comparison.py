"""Runs side by side for a pilot's decision: is pre-training worth its rounds and bytes, are pools
worth it against one model, and what does privacy cost?

Figures are read off finished folders. Which runs may be held against each other is said first: two
of other data, clients or seed answer nothing together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean, stdev

from secure_fl.pools.monitor import adjusted_rand
from secure_fl.records import Record
from secure_fl.report.audited import Audit
from secure_fl.report.findings import largest
from secure_fl.report.runs import Run

_ERRORS = 2.0
"""Standard errors, over clients, by which accuracies must differ to be told apart."""
_TRAINED = ("pretrain", "cluster")
_BESIDE = {"name", "evaluate", "seed", "data", "partition"}
"""Sections that are no part of how a run is made, or are looked at elsewhere."""


@dataclass(frozen=True)
class Reached(Record):
    """What it took until the mean accuracy first reached the target: `rounds` of training, bytes
    of all phases up to there, and seconds where they are recorded.
    """

    rounds: int
    bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Side(Record):
    """One run. None of what its record does not tell.

    Attributes:
        pools: models that clients choose among.
        unit, epsilon, delta: of differential privacy; `epsilon` is None without a bound too.
        accuracy, spread, worst, worst_clients: over clients, at the end.
        reached: None where the target was never reached, or nothing was measured.
        moves: clients that chose another pool than the round before, round by round.
        settled: adjusted Rand index of the last two rounds' choices; 1 where they are equal.
        rounds, bytes, seconds: of the whole run.
        audit: its verdict, with what takes away from it; empty without one, and where the record
            leaves it out.
        alarming: whether that is bad: broken, or of another state of the folder.
    """

    name: str
    pretrained: bool
    pools: int
    unit: str
    epsilon: float | None
    delta: float | None
    accuracy: float | None
    spread: float | None
    worst: float | None
    worst_clients: tuple[str, ...]
    reached: Reached | None
    moves: tuple[int, ...] | None
    settled: float | None
    rounds: int
    bytes: int
    seconds: float | None
    audit: str
    alarming: bool = False


@dataclass(frozen=True)
class Answer(Record):
    """One question, answered by two runs that differ in what is asked; or why nobody can.

    Attributes:
        question: what is asked.
        answer: in a few words.
        having, lacking: names of the two runs; empty where there are none.
        gain: mean over clients of the difference in accuracy, and its standard error over clients.
        worst: difference of the worst clients' accuracies.
        lines: the rest, in sentences.
    """

    question: str
    answer: str
    lines: tuple[str, ...]
    having: str = ""
    lacking: str = ""
    gain: float | None = None
    error: float | None = None
    worst: float | None = None


@dataclass(frozen=True)
class Comparison(Record):
    """All runs, the three answers, and why some runs cannot be held against each other."""

    target: float | None
    runs: tuple[Side, ...]
    answers: tuple[Answer, ...]
    apart: tuple[str, ...]


@dataclass(frozen=True)
class _Question:
    """What is asked, which runs have the thing and which lack it, the sections of the configuration
    that it is made by, and what gives a run without it.
    """

    asked: str
    has: Callable[[Run], bool]
    lacks: Callable[[Run], bool]
    sections: frozenset[str]
    without: str


_QUESTIONS = (
    _Question(
        "Is pre-training worth its rounds and bytes?",
        lambda run: run.config.pretrain.mode != "none" and run.pool_count > 0,
        lambda run: run.config.pretrain.mode == "none",
        frozenset({"pretrain", "objective"}),
        "--set pretrain.mode=none",
    ),
    _Question(
        "Are pools worth it against one model?",
        lambda run: run.pool_count > 1,
        lambda run: run.pool_count == 1,
        frozenset({"pools"}),
        "--set pools.count=1",
    ),
    _Question(
        "What does privacy cost?",
        lambda run: run.config.privacy.unit != "none",
        lambda run: run.config.privacy.unit == "none",
        frozenset({"privacy"}),
        "--set privacy.unit=none",
    ),
)


def compare(runs: Sequence[Run], target: float | None = None) -> Comparison:
    """Hold runs against each other.

    Args:
        runs: two at least; the first stands first.
        target: mean accuracy over clients that all are measured by; what the least accurate run
            ends with where it is None.
    """
    ends = [run.pools.accuracy for run in runs if run.pools is not None]
    known = [end for end in ends if end is not None]
    wanted = min(known, default=None) if target is None else target
    sides = {run.name: _side(run, wanted) for run in runs}
    answers = tuple(_answer(question, runs, sides, wanted) for question in _QUESTIONS)
    told = (_apart(first, other) for first, other in _pairs(runs))
    return Comparison(wanted, tuple(sides.values()), answers, tuple(filter(None, told)))


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The first run with each other."""
    return [(runs[0], other) for other in runs[1:]]


def unlike(one: Run, other: Run) -> list[str]:
    """Why accuracies of two runs are not comparable; empty where they are."""
    found = [f"other {name}" for name, value in one.setting.items() if value != other.setting[name]]
    if found:
        return found
    sizes = one.summary.examples, other.summary.examples
    if None not in sizes and sizes[0] != sizes[1]:
        return ["other numbers of examples"]
    return ["other examples, by their digest"] if _dealt(one, other) == "other" else []


def _dealt(one: Run, other: Run) -> str:
    """Whether the same examples were dealt: `same`, `other`, or `unknown`. A private run draws its
    test examples in another way than an open one, so digests of the two differ by that alone.
    """
    both = one.data_digest, other.data_digest
    if None in both:
        return "unknown"
    if both[0] == both[1]:
        return "same"
    return "other" if one.config.privacy.unit == other.config.privacy.unit else "redrawn"


def _apart(one: Run, other: Run) -> str:
    why = unlike(one, other)
    return f"{other.name} is not comparable with {one.name}: {', '.join(why)}" if why else ""


def _side(run: Run, target: float | None) -> Side:
    said, pools = run.summary.charged, run.pools
    costs = run.summary.costs.values()
    seconds = [cost.seconds for cost in costs]
    moved = _choices(run)
    worst = () if pools is None else pools.accuracies.items()
    least = None if pools is None else pools.accuracy_min
    audit = Audit.of(run)
    return Side(
        name=run.name,
        pretrained=run.config.pretrain.mode != "none",
        pools=run.pool_count,
        unit=run.config.privacy.unit,
        epsilon=None if run.summary.privacy is None else largest(run.summary.privacy),
        delta=None if said is None or run.summary.privacy is None else said.delta,
        accuracy=None if pools is None else pools.accuracy,
        spread=None if pools is None else pools.accuracy_std,
        worst=least,
        worst_clients=tuple(run.client(int(who)) for who, value in worst if value == least),
        reached=_reached(run, target),
        moves=None if moved is None else tuple(_moves(*both) for both in pairwise(moved)),
        settled=_settled(moved),
        rounds=sum(line.phase in _TRAINED for line in run.rounds),
        bytes=sum(cost.bytes_down + cost.bytes_up for cost in costs),
        seconds=None if None in seconds else sum(each for each in seconds if each is not None),
        audit="" if audit is None else audit.standing,
        alarming=audit is not None and audit.alarming,
    )


def _reached(run: Run, target: float | None) -> Reached | None:
    """When the mean accuracy first reached the target."""
    course = () if run.pools is None else run.pools.accuracy_per_round
    if target is None:
        return None
    needed = next(
        (at for at, value in enumerate(course) if value is not None and value >= target), None
    )
    if needed is None:
        return None
    last = next(
        (at for at, line in enumerate(run.rounds) if line.phase == "cluster"), len(run.rounds)
    )
    lines = run.rounds[: last + needed]
    seconds = [line.seconds for line in lines]
    return Reached(
        sum(line.phase in _TRAINED for line in lines),
        sum(line.bytes_down + line.bytes_up for line in lines),
        None if None in seconds else sum(each for each in seconds if each is not None),
    )


def _choices(run: Run) -> list[dict[str, int]] | None:
    """Who chose which pool, round by round and at the end; None where a round does not say, or
    there is nothing to choose.
    """
    if run.pools is None or run.pool_count < 2:
        return None
    rounds = [line.metrics.choices for line in run.lines("cluster")]
    return None if None in rounds else [dict(each or {}) for each in [*rounds, run.pools.choices]]


def _moves(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(after[who] != pool for who, pool in before.items() if who in after)


def _settled(choices: list[dict[str, int]] | None) -> float | None:
    if choices is None or len(choices) < 2 or choices[-1].keys() != choices[-2].keys():
        return None
    before, after = choices[-2:]
    return adjusted_rand(list(after.values()), [before[who] for who in after])


def _answer(
    question: _Question, runs: Sequence[Run], sides: dict[str, Side], target: float | None
) -> Answer:
    """By the two runs that differ least beside what is asked."""
    pairs = [
        (having, lacking)
        for having in runs
        if question.has(having)
        for lacking in runs
        if question.lacks(lacking) and lacking is not having
    ]
    fair = [pair for pair in pairs if not unlike(*pair)]
    measured = [pair for pair in fair if None not in (_end(pair[0]), _end(pair[1]))]
    if not measured:
        return _unanswered(question, pairs, fair)
    having, lacking = min(
        measured, key=lambda pair: len(_beside(pair[0], pair[1], question.sections))
    )
    gain, error = _gain(having, lacking)
    worst = (sides[having.name].worst or 0.0) - (sides[lacking.name].worst or 0.0)
    lines = [
        f"accuracy, mean over clients: {having.name} {_end(having):.3f}; {lacking.name}, without, "
        f"{_end(lacking):.3f}" + ("" if error is None else "; ± is one standard error"),
        f"worst client {worst:+.3f}",
        *_to_target(sides[having.name], sides[lacking.name], target),
        *_cautions(having, lacking, question),
    ]
    return Answer(
        question.asked,
        _told(gain, error),
        tuple(lines),
        having.name,
        lacking.name,
        gain,
        error,
        worst,
    )


def _end(run: Run) -> float | None:
    return None if run.pools is None else run.pools.accuracy


def _unanswered(
    question: _Question, pairs: Sequence[tuple[Run, Run]], fair: Sequence[tuple[Run, Run]]
) -> Answer:
    if fair:
        line = "accuracies are not in these records (evaluate.enabled = false, or no labels)"
    elif pairs:
        line = f"no two runs here are comparable: {', '.join(unlike(*pairs[0]))}"
    else:
        line = f"no run here with it and one without: add one by `{question.without}`"
    return Answer(question.asked, "not answered", (line,))


def _gain(having: Run, lacking: Run) -> tuple[float, float | None]:
    """Mean difference over clients, and its standard error; None of fewer than two clients."""
    assert having.pools is not None
    assert lacking.pools is not None
    with_it, without = having.pools.accuracies, lacking.pools.accuracies
    found = [
        value - other
        for who, value in with_it.items()
        if value is not None and (other := without.get(who)) is not None
    ]
    if len(found) < 2:
        return (_end(having) or 0.0) - (_end(lacking) or 0.0), None
    return fmean(found), stdev(found) / sqrt(len(found))


def _told(gain: float, error: float | None) -> str:
    if error is None:
        return f"{gain:+.3f}"
    clear = abs(gain) > _ERRORS * error
    return f"{gain:+.3f} ± {error:.3f}{'' if clear else ': not told apart'}"


def _to_target(having: Side, lacking: Side, target: float | None) -> list[str]:
    """Rounds and bytes of both until the target."""
    if target is None:
        return []
    one, other = having.reached, lacking.reached
    if one is None or other is None:
        missed = " and ".join(side.name for side in (having, lacking) if side.reached is None)
        return [f"to {target:.3f}: never reached by {missed}"]
    return [
        f"to {target:.3f}: {one.rounds} rounds of training against {other.rounds}, "
        f"{_times(one.bytes, other.bytes)} the bytes"
    ]


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f} times" if other else "from the start"


def _beside(one: Run, other: Run, asked: frozenset[str]) -> list[str]:
    """Sections in which two runs differ beside what is asked."""
    both = one.config.model_dump(), other.config.model_dump()
    names = both[0].keys() - asked - _BESIDE
    return sorted(name for name in names if both[0][name] != both[1][name])


def _cautions(having: Run, lacking: Run, question: _Question) -> list[str]:
    found = []
    if beside := _beside(having, lacking, question.sections):
        found.append(f"the two differ in {', '.join(f'[{each}]' for each in beside)} too")
    dealt = _dealt(having, lacking)
    if dealt == "redrawn":
        found.append("tested on other examples of the same clients: private runs draw them anew")
    if dealt == "unknown":
        found.append("whether both held the same examples is not in these records")
    return [*found, "one seed each: clients vary, and seeds do too"]
