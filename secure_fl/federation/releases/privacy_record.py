"""What a finished run says of its privacy: the claim per adversary, each client's ε, and what the
claims leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isclose, isfinite
from typing import TYPE_CHECKING

from secure_fl.config import FederationConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.summary import Privacy, SketchPrivacy, Summary
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.claims import PrivacyClaim, Setting, claims
from secure_fl.privacy.ledger import Budget, PrivacyLedger

if TYPE_CHECKING:  # whoever checks a record has no torch
    from secure_fl.federation.releases.budget import BudgetGate
    from secure_fl.federation.run_folder.metrics import RoundRecord

SKETCHES_ONLY = (
    "everything else of this run: updates, choices of pools and models have no differential privacy"
)
"""What no claim covers where only sketches are noised."""


def sketch_record(config: FederationConfig, gate: BudgetGate) -> SketchPrivacy | None:
    """For `summary.json`, what the sketches of a run cost that has no differential privacy
    otherwise; None in all other runs.

    The claims are written into the ledger's file too, each saying that it covers the
    sketches alone.
    """
    ledger, budget = gate.ledger, gate.budget
    if ledger is None or budget is None or gate.covers_run:
        return None
    said = sketches_said(config, ledger, budget)
    gate.state(said.claims)
    return said


def sketches_said(config: FederationConfig, ledger: PrivacyLedger, budget: Budget) -> SketchPrivacy:
    """What follows from the ledger of a run that noises its sketches and nothing else."""
    rows = _claims(config, ledger, budget.unit)
    return SketchPrivacy(
        covers="the sketches that start the pools, and nothing else",
        unit=str(budget.unit),
        adjacency=str(budget.adjacency),
        epsilon=_number(ledger.maximum(budget)),
        delta=budget.delta,
        releases=len(ledger.releases),
        ledger=ledger.mark,
        claims=tuple(replace(row, not_covered=(SKETCHES_ONLY, *row.not_covered)) for row in rows),
    )


def privacy_record(
    config: FederationConfig, gate: BudgetGate, records: Sequence[RoundRecord]
) -> Privacy | None:
    """What `summary.json` says of privacy; None without differential privacy of the run. An ε for
    which no bound is known is null, never a large number.

    The claims are written into the ledger's file too. A pool's ε is the largest of the clients that
    trained it; there is none where the record does not say who did. `outside` is what the run
    writes beside its releases, file by file.
    """
    ledger, budget = gate.ledger, gate.budget
    if ledger is None or budget is None or not gate.covers_run:
        return None
    said = privacy_said(config, ledger, budget)
    gate.state(said.claims)
    clients = {client: inf if found is None else found for client, found in said.clients.items()}
    pools = {
        str(pool): _number(max(clients[str(client)] for client in members))
        for pool, members in _trained(records).items()
    }
    return replace(said, pools=pools)


def privacy_said(config: FederationConfig, ledger: PrivacyLedger, budget: Budget) -> Privacy:
    """What follows from the ledger of a run with differential privacy: the same, whoever
    computes it.
    """
    rows = [row for unit in _units(ledger, budget.unit) for row in _claims(config, ledger, unit)]
    clients = {str(row.subject): row.epsilon for row in ledger.table(budget)}
    return Privacy(
        unit=str(budget.unit),
        adjacency=str(budget.adjacency),
        delta=budget.delta,
        budget=budget.epsilon,
        epsilon=_number(max(clients.values(), default=0.0)),
        clients={client: _number(epsilon) for client, epsilon in clients.items()},
        releases=len(ledger.releases),
        ledger=ledger.mark,
        claims=tuple(rows),
        outside=tuple(Manifest.of(config).outside),
    )


def differences(summary: Summary, ledger: PrivacyLedger) -> list[str]:
    """Where a summary says something else than its ledger: ε, or how much was released."""
    stated = summary.charged
    if stated is None or ledger.budget is None:
        return []
    found, said, problems = _number(ledger.maximum(ledger.budget)), stated.epsilon, list[str]()
    alike = found is said if None in (found, said) else isclose(found or 0, said or 0, rel_tol=1e-3)
    if not alike:
        problems.append(f"summary.json states ε = {said}, its ledger gives {found}")
    if stated.releases != len(ledger.releases):
        counted = f"summary.json counts {stated.releases} releases"
        problems.append(f"{counted}, its ledger {len(ledger.releases)}")
    return problems


def _units(ledger: PrivacyLedger, unit: PrivacyUnit) -> list[PrivacyUnit]:
    """The budget's unit; under client-level noise also the examples behind it, whose ε is another
    number and is not added.
    """
    if unit is not PrivacyUnit.CLIENT:
        return [unit]
    return [each for each in (unit, PrivacyUnit.EXAMPLE) if ledger.subjects(each)]


def setting_of(config: FederationConfig, clients: int) -> Setting:
    """Who sees what in a run of so many clients."""
    security, privacy = config.security, config.privacy
    setting = Setting(security.protection, privacy.colluders, key_holder=security.key_holder)
    if security.protection == "plain":
        return setting
    rules = config.weakest_sums(clients)
    liar = rules.against_a_lying_server
    return replace(setting, threshold=rules.threshold, against_a_liar=liar)


def _claims(
    config: FederationConfig, ledger: PrivacyLedger, unit: PrivacyUnit
) -> list[PrivacyClaim]:
    setting = setting_of(config, len(ledger.subjects(unit)))
    adjacency = Adjacency(config.privacy.adjacency)
    try:
        return claims(ledger, unit, adjacency, config.privacy.delta, setting)
    except PrivacyError:
        return []


def _trained(records: Sequence[RoundRecord]) -> dict[int, set[int]]:
    """Clients that trained each pool in any round; empty where a round's record does not tell."""
    rounds = [record.metrics.choices for record in records if record.phase == "cluster"]
    found = dict[int, set[int]]()
    if None in rounds:
        return {}
    for choices in rounds:
        for client, pool in (choices or {}).items():
            found.setdefault(pool, set()).add(int(client))
    return dict(sorted(found.items()))


def _number(epsilon: float) -> float | None:
    return epsilon if isfinite(epsilon) else None
