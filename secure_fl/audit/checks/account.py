"""Whether every ε that is claimed is what its releases cost, by a second accountant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.verdicts import of_claims
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.second_account import Bracket, bracket
from secure_fl.audit.subject import Subject
from secure_fl.errors import AuditError
from secure_fl.estimate.planning import client_plans
from secure_fl.federation.releases.privacy_record import privacy_said, setting_of, sketches_said
from secure_fl.files import read_bytes
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release

_LARGEST = 1 << 32
Entries = Sequence[Mapping[str, Any]]


class SecondAccount:
    """Brackets ε from the releases' events, from first principles, and fails where a claim or the
    budget is below the bracket's low side.

    Of a run that has ended: the releases in `ledger.json`, against every claim of `summary.json`,
    each for its own unit, adjacency and δ. Of a configuration: the releases that are planned,
    against the claims that the run would write. An adversary who sees single uploads is charged
    with one client's noise. Of one client's own ledger: its releases, against its budget and what
    that ledger's own accountant says.

    **Guarantee**: a claim that is called broken is below what its events cost: no mechanism that
    needs these events as they are has so small an ε. No coin decides.
    **Assumes**: the events say what was done: `charges` and the canaries look at that.
    **Not covered**: releases that are not in the ledger. A claim above the bracket is loose, and
    holds. Of integer noise the bracket is some 10 % wide: a claim too low by less is not seen.
    """

    name = "account"
    tried = "whether some claimed ε is below what its releases cost, by a second accountant"

    def refused(self, subject: Subject) -> str:
        if subject.config.privacy.unit == "none" and not subject.config.noises_sketches:
            return "nothing that the run releases is noised, so that it claims no ε"
        if subject.party and subject.ledger is None:
            return "this party keeps no ledger: each client keeps its own"
        return ""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        calibrates = subject.folder is None and subject.config.privacy.noise is None
        return 15.0 if calibrates else 5.0

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        told = _told(subject)
        rows = list(told.rows())
        if told.stated is not None:
            rows.append(_figure("ε by the ledger's own accountant", told.spent, told.stated))
        wrong = [row for row in rows if row.value > (row.limit or 0.0)]
        claims = [row for row in rows if row.name.startswith("claim")]
        whose = f"{len(claims)} claims" if told.stated is None else "the ledger's own ε"
        said = f"{whose} and the budget are at least what {told.count} releases cost"
        if wrong:
            worst = max(wrong, key=lambda row: row.value - (row.limit or 0.0))
            said = f"{worst.name}: ε = {worst.limit:.4g}, and the releases cost {worst.value:.4g}"
        return of_claims(self, subject, said, rows, broken=bool(wrong))


@dataclass(frozen=True)
class _Told:
    """What is claimed, and of which releases.

    Attributes:
        stated: what a ledger's own accountant gives for the budget's neighbours, where the ledger
            is all that there is.
    """

    subject: Subject
    entries: Entries
    claims: tuple[PrivacyClaim, ...]
    budget: Budget
    stated: float | None = None

    @property
    def count(self) -> int:
        """How many releases there are, of all clients."""
        return len(self.entries)

    def rows(self) -> Iterator[Figure]:
        """Each claim, and the budget, beside the bracket of its releases."""
        found: dict[tuple[object, ...], Bracket] = {}
        for claim in self.claims:
            if claim.epsilon is None:
                continue
            alone = self._setting(claim.unit).sees_single_uploads(claim.adversary)
            key = claim.unit, claim.adjacency, claim.delta, alone
            if key not in found:
                seen = self._laid_open if alone else self.entries
                found[key] = _bracket(seen, claim.delta, claim.unit, claim.adjacency)
            name = f"claim against {claim.adversary}, one {claim.unit}"
            yield _figure(name, found[key], claim.epsilon)
        planned = self.subject.folder is None and self.subject.config.privacy.noise is not None
        if not planned:  # a run whose noise is set stops before it would pass its budget
            yield _figure(f"budget, one {self.budget.unit}", self.spent, self.budget.epsilon)

    @cached_property
    def spent(self) -> Bracket:
        """What all releases cost, for the budget's neighbours."""
        budget = self.budget
        return _bracket(self.entries, budget.delta, budget.unit, budget.adjacency)

    def _setting(self, unit: PrivacyUnit) -> Any:
        touched = [each for each in self.entries if unit in (each["unit"], each["also_protects"])]
        clients = {client for each in touched for client in each["subjects"]}
        return setting_of(self.subject.config, len(clients))

    @cached_property
    def _laid_open(self) -> Entries:
        """The releases as somebody finds them who sees one upload: with one client's noise."""
        return [{**each, "event": _own_noise(each["event"])} for each in self.entries]


def _figure(name: str, cost: Bracket, claimed: float) -> Figure:
    return Figure(name, cost.low, low=cost.low, high=cost.high, limit=claimed)


def _own_noise(event: Mapping[str, Any]) -> Mapping[str, Any]:
    if event["event"] != "integer":
        return event
    return {**event, "variance": event["variance"] / event["parties"], "parties": 1}


def _bracket(entries: Entries, delta: float, unit: PrivacyUnit, adjacency: Adjacency) -> Bracket:
    return bracket(entries, delta, unit=unit.value, adjacency=adjacency.value)


def _budget(subject: Subject) -> Budget:
    privacy = subject.config.privacy
    whole = privacy.unit != "none"
    unit = PrivacyUnit(privacy.unit) if whole else PrivacyUnit.EXAMPLE
    epsilon = privacy.epsilon if whole else privacy.sketch_epsilon
    return Budget(epsilon, privacy.delta, unit, Adjacency(privacy.adjacency))


def _told(subject: Subject) -> _Told:
    if subject.party:
        return _of_party(subject)
    return _of_folder(subject) if subject.folder is not None else _planned(subject)


def _of_party(subject: Subject) -> _Told:
    """What a client's own ledger says."""
    assert subject.ledger is not None
    ledger = PrivacyLedger.load(subject.ledger)
    entries = [release.to_dict() for release in ledger.releases]
    budget = ledger.budget or _budget(subject)
    return _Told(subject, entries, (), budget, ledger.maximum(budget))


def _of_folder(subject: Subject) -> _Told:
    """What a folder says. Raises AuditError: it claims an ε without a ledger."""
    summary, charged = subject.summary, None if subject.summary is None else subject.summary.charged
    assert summary is not None
    if charged is None or subject.ledger is None:
        remedy = "restore the files that the run wrote"
        raise AuditError("is not there, though the run's noise is charged", "ledger", None, remedy)
    content = json.loads(read_bytes(subject.ledger, most=_LARGEST))
    return _Told(subject, content["releases"], charged.claims, _budget(subject))


def _planned(subject: Subject) -> _Told:
    """What a run would release and claim, as far as that is known before."""
    budget = _budget(subject)
    ledger, example = PrivacyLedger(budget), budget.unit is PrivacyUnit.EXAMPLE
    for client, events in _events(subject):
        for number, event in enumerate(events):
            key, whose = f"planned/{client}/{number}", (client,)
            also = None if example else PrivacyUnit.EXAMPLE
            told = ("planned", number, "planned", budget.unit, whose, event)
            ledger.record(Release(key, *told, "declared", also))
    said = privacy_said if subject.config.privacy.unit != "none" else sketches_said
    claims = said(subject.config, ledger, budget).claims
    entries = [release.to_dict() for release in ledger.releases]
    return _Told(subject, entries, claims, budget)


def _events(subject: Subject) -> Iterator[tuple[int, Sequence[Event]]]:
    """Each client's planned events."""
    federation, factory = subject.federation, subject.factory
    unit = subject.config.privacy.unit
    if unit == "example":
        for row in client_plans(federation):
            yield row.client, row.plan.events()
        return
    sketch = factory.sketch.released
    events: Sequence[Event] = () if sketch is None else sketch.events()
    if factory.client_plan is not None:
        events = factory.client_plan.events()
    for client in federation.clients:
        yield client.id, events


ACCOUNT = SecondAccount()
