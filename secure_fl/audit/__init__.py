"""Attempts to falsify what the project claims.

Public names, each imported when it is used:

- `check_sensitivity`: Compare what `subject` releases on neighbouring data sets with what it
  claims; `report.require()` raises if it is more.
- `Finding`: What one pair of neighbouring data sets showed.
- `mechanism_findings`: What a mechanism releases, with one example there, missing, and another; on
  a full and on a very small data set.
- `objective_findings`: Every term of the objective against its declared coupling, on `examples`
  inputs of `shape`, in float64.
- `SensitivityReport`: All pairs tried on one objective or mechanism.
- `unit_findings`: The objective's units against what is claimed of them; a group's members are
  `units.members`, where it has that attribute.
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
