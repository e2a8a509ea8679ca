"""Whether a run's ledger charges what its own mechanisms release, round by round."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.verdicts import of_claims
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.federation.factory.example_plan import choice_of, plan_examples
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import PrivacyLedger, Release

TRAINED, SKETCHED = ("pretrain", "cluster"), ("centre", "sketch")
_TOLERANCE = 1e-3
"""Of an event's numbers, relative: noise that another version of a library calibrated."""
Expected = Mapping[tuple[str, int], Sequence[Event]]
"""(phase, client) -> what each round costs that client; the last says it of all that follow."""


class ChargesCheck:
    """Builds the run's mechanisms and plans anew from its settings and examples, and holds the
    ledger against them: every round of training that `metrics.jsonl` counts is charged to as many
    clients, each event is what that client's mechanism says of itself, and so are sketches and
    choices; and the budget is for the neighbours and at the δ that the settings say.

    **Guarantee**: a ledger that lost a round's releases, or whose events have more noise, a lower
    rate or fewer steps than the run's own mechanisms, is found, even where ε, marks, hashes and
    transcript were all made to fit; as long as settings and rounds are the run's.
    **Assumes**: the examples are those of the run.
    **Not covered**: a choice of a pool that nobody charged, and one client charged in place of
    another; a folder whose settings and rounds were rewritten too: then nothing in it tells, and
    only a head that somebody kept does. Whether mechanisms do what they say: the canaries.
    """

    name = "charges"
    tried = "whether a release was charged too little, or not at all, by the run's own mechanisms"

    def refused(self, subject: Subject) -> str:
        if subject.folder is None:
            return "only a run that has ended has charged anything"
        return "" if subject.ledger is not None else "the run has no ledger"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 15.0 if subject.config.privacy.noise is None else 5.0

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        assert subject.folder is not None
        assert subject.ledger is not None
        folder, ledger = RunFolder.open(subject.folder), PrivacyLedger.load(subject.ledger)
        own = [release for release in ledger.releases if release.history is None]
        factory, lines = _as_it_began(subject, folder), folder.read_metrics()
        expected = dict(_expected(subject, factory, ledger))
        found = [*_rounds_left_out(lines, expected, len(subject.clients), own)]
        found += [
            *_budgeted(subject, ledger),
            *_otherwise(expected, own),
            *_beside(lines, factory, own),
        ]
        said = f"{len(own)} releases are charged as the run's own mechanisms say"
        if found:
            more = f"; {len(found) - 1} more" if len(found) > 1 else ""
            said = f"{found[0]}{more}"
        figure = Figure("releases that are charged otherwise", len(found), limit=0)
        return of_claims(self, subject, said, [figure], broken=bool(found))


CHARGES = ChargesCheck()


def _as_it_began(subject: Subject, folder: RunFolder) -> Factory:
    """The run's factory; of a run that was made longer with the noise that it began with."""
    begun, factory = folder.begun_as(), subject.factory
    if len(begun) == 1:
        return factory
    return replace(factory, facts=replace(factory.facts, begun_as=begun[0][0]))


def _expected(
    subject: Subject, factory: Factory, ledger: PrivacyLedger
) -> Iterator[tuple[tuple[str, int], Sequence[Event]]]:
    """What rounds of training, and of sums of view moments, cost each client."""
    privacy, plan = subject.config.privacy, factory.client_plan
    for client in subject.clients:
        if plan is not None:
            for phase in plan.by_phase():
                yield (phase, client.id), (plan.of(phase).event(1),)
        elif privacy.unit == "example":
            adjacency = Adjacency(privacy.adjacency)
            already = ledger.brought(PrivacyUnit.EXAMPLE, client.id, adjacency)
            own = plan_examples(factory, len(client.train), client.train.labels, already)
            for phase, steps in zip(TRAINED, (own.pretrain, own.pools), strict=True):
                if steps is not None:
                    yield (phase, client.id), (steps.planned(own.noise),)
            if subject.config.noises_moments:
                yield ("pretrain", client.id), factory.view_moments.events()


def _budgeted(subject: Subject, ledger: PrivacyLedger) -> Iterator[str]:
    """The budget that the run was held against is of other neighbours, or at another δ, than its
    settings say.
    """
    privacy, budget = subject.config.privacy, ledger.budget
    unit = "example" if privacy.unit == "none" else privacy.unit
    told = f"one {unit}, {privacy.adjacency}, δ = {privacy.delta:g}"
    found = budget and f"one {budget.unit}, {budget.adjacency}, δ = {budget.delta:g}"
    if found != told:
        yield f"the ledger's budget is for {found}, and the settings say {told}"


def _rounds_left_out(
    lines: Sequence[RoundRecord], expected: Expected, clients: int, own: Sequence[Release]
) -> Iterator[str]:
    """Rounds of training that fewer clients are charged for than were asked. Clients that have
    nothing to train on release nothing.
    """
    charged: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for release in own:
        charged[release.phase, release.round + 1].update(release.subjects)
    for line in lines:
        if any(phase == line.phase for phase, _ in expected):
            idle = clients - sum(phase == line.phase for phase, _ in expected)
            found = len(charged[line.phase, line.round])
            if found < line.clients - idle:
                told = f"{line.clients} clients were asked, {found} are charged"
                yield f"{line.phase}, round {line.round}: {told}"


def _otherwise(expected: Expected, own: Sequence[Release]) -> Iterator[str]:
    """Releases of training whose event is not what the client's mechanism says."""
    for release in own:
        for client in release.subjects if release.phase in TRAINED else ():
            events = expected.get((release.phase, client), ())
            of_round = events[min(release.round, len(events) - 1) :][:1]
            said = _apart(release.event, of_round[0]) if of_round else "no such training"
            if said:
                yield f"{release.phase}, round {release.round + 1}, client {client}: {said}"


def _beside(
    lines: Sequence[RoundRecord], factory: Factory, own: Sequence[Release]
) -> Iterator[str]:
    """Sketches that are not charged as often as clients were asked, and choices that are charged
    otherwise.
    """
    sketch = factory.sketch.released
    asked = max((line.clients for line in lines if line.phase in SKETCHED), default=0)
    events = () if sketch is None or not asked else sketch.events()
    for number, event in enumerate(events):
        fits = [each for each in own if each.phase in SKETCHED and not _apart(each.event, event)]
        found = len({client for each in fits for client in each.subjects})
        if found < asked:
            told = f"{asked} clients were asked, {found} are charged for it"
            yield f"release {number + 1} of the sketches: {told}"
    choices = [each for each in own if each.phase == "choice"]
    for release in choices:
        if said := _apart(release.event, choice_of(factory.facts.config, 1).event(1)):
            yield f"choice, round {release.round + 1}: {said}"


def _apart(charged: Event, mechanism: Event) -> str:
    """In which fields two events differ; empty where they do not."""
    ours, theirs = charged.to_dict(), mechanism.to_dict()
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(name), theirs.get(name)
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        if numbers and math.isclose(float(one), float(other), rel_tol=_TOLERANCE):  # type: ignore[arg-type]
            continue
        if one != other:
            return f"{name} is charged as {one}, and the mechanism's is {other}"
    return ""
