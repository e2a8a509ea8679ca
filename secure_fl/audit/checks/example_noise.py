"""Is what a run adds to its sums the noise that it charges for? Canaries at the clip interface of
the run's own mechanisms, and tests of the noise and the coins that they met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from secure_fl.audit import noise_tests
from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.check import Depth
from secure_fl.audit.checks.layer_noise import layers_of
from secure_fl.audit.clip_canaries import Played, board_of, play
from secure_fl.audit.game import Claim, Coins, SealedAssignment, all_bounds
from secure_fl.audit.noise_tests import Matrix
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.own_training import (
    OwnTraining,
    nothing_private,
    private_phases,
    seconds_of_rounds,
    stated_noise,
)
from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import AuditError, PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.noise import NoiseSource

_SIZES = {Depth.MINUTES: (1000, 40_000), Depth.HOUR: (2000, 400_000), Depth.NIGHT: (5000, 800_000)}
"""Canaries, and rows of all steps together, about."""
_STEPS = (8, 200)
_BESIDE = 4
"""Steps of another client and of other rounds, whose noise is held against this one's."""
_LATER = {Depth.MINUTES: 4, Depth.HOUR: 24, Depth.NIGHT: 96}
"""Rounds over the whole run, the last one among them, each with so many steps."""
_FALSE = 1e-3
_BOUNDS, _TESTS = 5, 14
"""Bounds that could be above a claim, and tests that could fail, in a phase."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class ExampleNoise:
    """Dirac canaries through the run's own sampling, clipping, summing and noising.

    **Guarantee**: an honest run is called broken with probability at most 10⁻³ in all: every bound
    and every test gets an equal share. **Assumes**: as `clip_canaries`; the ε that canaries are
    held against is that of the events that the run was charged. **Not covered**: what one example
    does to the contributions of others (`hubs`, `coupling`); sketches and choices.
    """

    name: str = "example-noise"
    tried: str = (
        "whether the noise, the sampling or the clipping of private training are other than those "
        "that the ledger charges for"
    )

    def refused(self, subject: Subject) -> str:
        return nothing_private(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """About 4 seconds a phase at the quick depth, whatever the encoder."""
        most = {Depth.MINUTES: 4.0, Depth.HOUR: 90.0, Depth.NIGHT: 400.0}[depth]
        return seconds_of_rounds(subject.config, 0.4, most)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        phases = private_phases(subject.config)
        noise, found = new_noise(), list[_Seen]()
        share = _FALSE / (len(phases) * (_BOUNDS + _TESTS))
        for number, phase in enumerate(phases):
            own = OwnTraining.of(subject, phase, noise)
            try:
                rounds = spread(own.rounds, _LATER[depth], seed)
                found.append(_try(subject, own, noise, _SIZES[depth], rounds, share))
            except PrivacyError as refusal:
                found.append(_Seen(own, (f"{phase}: the run's own guard refuses: {refusal}",)))
            progress((number + 1) / len(phases))
        wrong = [each for seen in found for each in seen.wrong]
        tried = sum(seen.canaries for seen in found)
        held = f"noise, sampling and clipping are as charged, by {tried} canaries"
        return Outcome(
            self.name,
            self.tried,
            "whoever sees every noised sum",
            "example",
            "broken" if wrong else "held",
            "; ".join(wrong) or held,
            _FALSE,
            tuple(bound for seen in found for bound in seen.bounds),
            tuple(figure for seen in found for figure in seen.figures),
        )


@dataclass(frozen=True)
class _Seen:
    """What a phase showed; `wrong` says what is false."""

    own: OwnTraining
    wrong: tuple[str, ...]
    bounds: tuple[Bound, ...] = ()
    figures: tuple[Figure, ...] = ()
    canaries: int = 0


def _try(
    subject: Subject,
    own: OwnTraining,
    noise: NoiseSource,
    size: tuple[int, int],
    rounds: Sequence[int],
    share: float,
) -> _Seen:
    canaries, rows = size
    replaced = Adjacency(subject.config.privacy.adjacency) is Adjacency.REPLACE_ONE
    assignment = SealedAssignment.sealed(canaries)
    board = board_of(own, assignment.there, opposite=replaced)
    steps = _steps(own, board.examples, rows)
    played = play(own, board, steps)
    coins = assignment.open(scores := played.scores(canaries))
    others = [
        play(other, replace(board), min(_BESIDE, steps)).quiet()
        for other in _others(subject, own, noise, rounds)
    ]
    again = partial(OwnTraining.of, subject, own.phase, noise, own.releasing.client)
    empty = play(again(_EMPTY), board, 1, empty=True)
    layers = layers_of(again(_EMPTY + 1))
    claim = _claim(subject, own.charged.with_count(steps), replaced=replaced)
    bounds = _bounds(scores, coins, claim, share)
    tests = _tests(own, played, others, empty) | layers.tests()
    wrong = (
        *_exact(own, played),
        *(f"{name} (p = {p:.1e})" for name, p in tests.items() if p <= share),
        *_false_bounds(bounds, claim),
    )
    return _Seen(
        own,
        tuple(f"{own.phase}: {each}" for each in wrong),
        tuple(_of_phase(own, bound, claim) for bound in bounds),
        tuple(_figures(own, played, bounds, tests)),
        canaries,
    )


def _steps(own: OwnTraining, examples: int, rows: int) -> int:
    """That take about so many rows; no more than the run has."""
    expected = own.mechanism.sampling_rate * examples * (1 if own.path.supervised else 2)
    return min(int(np.clip(rows / expected, *_STEPS)), own.charged.steps * own.rounds)


_EMPTY = 1 << 20
"""From here on rounds have numbers that no run has: their noise is of no other."""


def _bounds(scores: Matrix, coins: Coins, claim: Claim, share: float) -> tuple[Bound, ...]:
    """By all methods; by none, where there is no noise at all to measure by."""
    try:
        return all_bounds(scores, coins, claim, 1 - share, share)
    except AuditError:
        return ()


def _others(
    subject: Subject, own: OwnTraining, noise: NoiseSource, rounds: Sequence[int]
) -> Iterator[OwnTraining]:
    """The next client's training in the same round, and the same client's in other rounds."""
    mine = own.releasing.client
    for client in range(len(subject.clients)):
        trains = len(subject.clients[client].train) >= 2
        if client != mine and trains and (not own.path.supervised or _labelled(subject, client)):
            yield OwnTraining.of(subject, own.phase, noise, client)
            break
    for number in sorted({1, *rounds} - {0}):
        yield OwnTraining.of(subject, own.phase, noise, mine, number)


def _labelled(subject: Subject, client: int) -> bool:
    return subject.clients[client].train.labels >= 2


def _claim(subject: Subject, event: GaussianEvent, *, replaced: bool) -> Claim:
    """What the ledger says of these steps."""
    privacy = subject.config.privacy
    epsilon = epsilon_of([Charge(event, Adjacency(privacy.adjacency))], privacy.delta)
    shift = event.steps * event.sampling_rate * (2 if replaced else 1)
    return Claim(epsilon, privacy.delta, (shift, event.effective_noise * event.steps**0.5))


def _tests(
    own: OwnTraining, played: Played, others: Sequence[Matrix], empty: Played
) -> dict[str, float]:
    noise = np.concatenate([played.quiet(), *others])
    least = min(map(noise_tests.too_little, others))
    rate, units, count = own.charged.sampling_rate, played.units, played.count
    example = rate * count * own.path.members / played.drawn.shape[1]
    return {
        "there is less noise than stated": noise_tests.too_little(noise),
        "another client, or another round, has less noise than stated": len(others) * least,
        "noise repeats between steps, sums, rounds or clients": noise_tests.repeated(noise),
        "noise repeats between coordinates": noise_tests.within(played.quiet(in_place=True)),
        "noise is not normal": noise_tests.another_law(noise),
        "a sum's noise is not as wide as stated": noise_tests.uneven(noise),
        "a step without anybody is not noised": noise_tests.too_little(empty.quiet()),
        "units are drawn more often than charged": noise_tests.drawn_too_often(units, count, rate),
        "units of a step are not drawn independently": noise_tests.sizes(units, count, rate),
        "steps do not draw independently": noise_tests.again(played.drawn, example),
    }


def _exact(own: OwnTraining, played: Played) -> Iterator[str]:
    """What no chance decides."""
    sums = len(own.mechanism.sensitivity(Adjacency.ZERO_OUT))
    if own.training.spec.steps != own.charged.steps:
        yield f"{own.training.spec.steps} steps are trained, {own.charged.steps} are charged"
    if played.over - {own.mechanism.sampling_rate * played.drawn.shape[1]}:
        yield "a statistic is divided by another number than the public expected one"
    if set(played.releases) != {sums}:
        yield f"a step has {sums} sums, of which {min(played.releases)} are noised"
    composed = sum(wide**-2 for wide in stated_noise(own.mechanism)) ** -0.5
    if composed < own.charged.effective_noise * (1 - _ROUNDING):
        yield f"the noise of a step is {composed:.4g}, charged {own.charged.effective_noise:.4g}"
    if played.twice:
        yield "an example is in two units of one step"


def _false_bounds(bounds: tuple[Bound, ...], claim: Claim) -> Iterator[str]:
    for bound in bounds:
        if bound.refutes(claim.epsilon):
            yield f"ε ≥ {bound.epsilon:.3g} by {bound.method}, claimed {claim.epsilon:.3g}"
        if bound.details.get("alarm"):
            yield "canaries move sums by more deviations of the noise than charged"


def _of_phase(own: OwnTraining, bound: Bound, claim: Claim) -> Bound:
    """With what it is held against: so many steps of one phase have an ε of their own."""
    return replace(
        bound,
        method=f"{bound.method}, {own.phase}",
        details={**bound.details, "claimed": claim.epsilon},
    )


def _figures(
    own: OwnTraining, played: Played, bounds: tuple[Bound, ...], tests: dict[str, float]
) -> Iterator[Figure]:
    for seen in (bound.details for bound in bounds if "mu_claimed" in bound.details):
        half, name = 1.96 * seen["mu_error"], f"{own.phase}: shift, in deviations of the noise"
        limit = seen["mu_claimed"]
        yield Figure(name, seen["mu"], seen["mu"] - half, seen["mu"] + half, None, limit)
    rate = float(played.units.mean()) / played.count
    yield Figure(
        f"{own.phase}: share of units drawn", rate, None, None, None, own.charged.sampling_rate
    )
    deviation = float(np.sqrt((played.quiet() ** 2).mean()))
    yield Figure(f"{own.phase}: noise, in deviations as stated", deviation, None, None, None, 1.0)
    yield Figure(f"{own.phase}: smallest p of {len(tests)} tests", min(tests.values()))


EXAMPLE_NOISE = ExampleNoise()
"""As the catalogue names it."""
