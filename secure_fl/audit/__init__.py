"""Attempts to falsify what the project claims.

Public names, each imported when it is used: `check_sensitivity` compares what an objective or a
mechanism releases on neighbouring data sets with what it claims, and returns a `SensitivityReport`
of each `Finding`; `mechanism_findings`, `objective_findings` and `unit_findings` are its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.audit.coupling import objective_findings as objective_findings
    from secure_fl.audit.coupling import unit_findings as unit_findings
    from secure_fl.audit.finding import Finding as Finding
    from secure_fl.audit.finding import SensitivityReport as SensitivityReport
    from secure_fl.audit.sensitivity import check_sensitivity as check_sensitivity
    from secure_fl.audit.sensitivity import mechanism_findings as mechanism_findings

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "coupling": ["objective_findings", "unit_findings"],
        "finding": ["Finding", "SensitivityReport"],
        "sensitivity": ["check_sensitivity", "mechanism_findings"],
    },
)
