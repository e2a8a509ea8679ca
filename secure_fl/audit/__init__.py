"""Attempts to falsify what the project claims.

Public names, each imported when it is used: `check_sensitivity` compares what an objective or a
mechanism releases on neighbouring data sets with what it claims, and returns a `SensitivityReport`
of each `Finding`; `mechanism_findings`, `objective_findings` and `unit_findings` are its parts.
`path_sensitivity` does so on a run's own path and examples, with optimised neighbours.
`audit_trainer` plays a game of `DiracCanaries`, whose coins are a `SealedAssignment`, with any
`Trainer` that makes a `Claim`, and returns a `TrainerAudit` with bounds on ε (those are in
`secure_fl.audit.bounds`). `bracket` and `check_claim` are a second accountant for a ledger; they
return a `Bracket` and an `AccountCheck`.
`audit` tries all checks that apply to a `Subject`, at a `Depth`, and writes an `AuditDocument`,
which `read_audit` reads; `self_test` plants faults that the checks must see, and gives a
`SelfTest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.audit.check import Depth as Depth
    from secure_fl.audit.coupling import objective_findings as objective_findings
    from secure_fl.audit.coupling import unit_findings as unit_findings
    from secure_fl.audit.finding import Finding as Finding
    from secure_fl.audit.finding import SensitivityReport as SensitivityReport
    from secure_fl.audit.game import Claim as Claim
    from secure_fl.audit.game import DiracCanaries as DiracCanaries
    from secure_fl.audit.game import SealedAssignment as SealedAssignment
    from secure_fl.audit.game import Trainer as Trainer
    from secure_fl.audit.game import TrainerAudit as TrainerAudit
    from secure_fl.audit.game import audit_trainer as audit_trainer
    from secure_fl.audit.neighbour_search import path_sensitivity as path_sensitivity
    from secure_fl.audit.second_account import AccountCheck as AccountCheck
    from secure_fl.audit.second_account import Bracket as Bracket
    from secure_fl.audit.second_account import bracket as bracket
    from secure_fl.audit.second_account import check_claim as check_claim
    from secure_fl.audit.sensitivity import check_sensitivity as check_sensitivity
    from secure_fl.audit.sensitivity import mechanism_findings as mechanism_findings
    from secure_fl.audit.subject import Subject as Subject
    from secure_fl.audit.suite.document import AuditDocument as AuditDocument
    from secure_fl.audit.suite.document import read_audit as read_audit
    from secure_fl.audit.suite.running import audit as audit
    from secure_fl.audit.suite.self_test import SelfTest as SelfTest
    from secure_fl.audit.suite.self_test import self_test as self_test

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "check": ["Depth"],
        "coupling": ["objective_findings", "unit_findings"],
        "finding": ["Finding", "SensitivityReport"],
        "game": [
            "Claim",
            "DiracCanaries",
            "SealedAssignment",
            "Trainer",
            "TrainerAudit",
            "audit_trainer",
        ],
        "neighbour_search": ["path_sensitivity"],
        "second_account": ["AccountCheck", "Bracket", "bracket", "check_claim"],
        "sensitivity": ["check_sensitivity", "mechanism_findings"],
        "subject": ["Subject"],
        "suite.document": ["AuditDocument", "read_audit"],
        "suite.running": ["audit"],
        "suite.self_test": ["SelfTest", "self_test"],
    },
)
