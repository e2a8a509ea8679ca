"""What a finished run says of its privacy: the claim per adversary, each client's ε, and what the claims leave out."""

from __future__ import annotations

from math import isfinite
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.budget import BudgetGate
from secure_fl.privacy.claims import PrivacyClaim, Setting, claims
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.units import Adjacency, PrivacyUnit

OUTSIDE = (
    "accuracies in this record: they are measured on test examples, which are other examples, for the experimenter",
    "representation metrics and the picture of embeddings: a simulation reads all data in one place to draw them",
)
"""What a simulation records beside its releases; a deployment leaves it out (evaluate.enabled = false)."""


def privacy_record(config: FederationConfig, gate: BudgetGate) -> dict[str, Any] | None:
    """For `summary.json`; None without differential privacy. An ε for which no bound is known is null, never a large number."""
    ledger, budget = gate.ledger, gate.budget
    if ledger is None or budget is None:
        return None
    rows = [row for unit in _units(ledger, budget.unit) for row in _claims(config, ledger, unit)]
    return {
        "unit": str(budget.unit),
        "adjacency": str(budget.adjacency),
        "delta": budget.delta,
        "budget": budget.epsilon,
        "epsilon": _number(ledger.maximum(budget)),
        "clients": {str(row.subject): _number(row.epsilon) for row in ledger.table(budget, fine=False)},
        "releases": len(ledger.releases),
        "claims": [{**row.to_dict(), "epsilon": _number(row.epsilon)} for row in rows],
        "outside": [*OUTSIDE, *(["choices in this record: read off the clients by the experimenter"] if budget.unit is PrivacyUnit.CLIENT else [])],
    }


def _units(ledger: PrivacyLedger, unit: PrivacyUnit) -> list[PrivacyUnit]:
    """The budget's unit; under client-level noise also the examples behind it, whose ε is another number and is not added."""
    return [each for each in (unit, PrivacyUnit.EXAMPLE) if ledger.subjects(each)] if unit is PrivacyUnit.CLIENT else [unit]


def _claims(config: FederationConfig, ledger: PrivacyLedger, unit: PrivacyUnit) -> list[PrivacyClaim]:
    setting = Setting(protection=config.security.protection, key_holder=config.security.key_holder, colluders=config.privacy.colluders)
    adjacency = Adjacency(config.privacy.adjacency)
    try:
        return claims(ledger, unit, adjacency, config.privacy.delta, setting)
    except PrivacyError:
        return []


def _number(epsilon: float) -> float | None:
    return epsilon if isfinite(epsilon) else None
