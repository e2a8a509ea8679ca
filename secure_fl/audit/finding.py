"""What a sensitivity check has seen, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from secure_fl.errors import PrivacyError

ROUNDING = 1e-4
"""Excess over a claim that is put down to float32 sums, relative."""


@dataclass(frozen=True)
class Finding:
    """One pair of neighbours.

    Attributes:
        edit: `add`, `remove` or `replace`.
        newcomer: the kind of example by which they differ, as in `neighbours.NEWCOMERS`.
        released: which released sum, or which term of a loss, has changed.
        change: its length, ‖f(S) − f(S')‖; NaN where one of the two is not finite.
        claim: what it may be at most.
    """

    edit: str
    newcomer: str
    released: str
    change: float
    claim: float

    @property
    def ratio(self) -> float:
        """Change over claim; infinite where it is not finite, or nothing may change."""
        if not isfinite(self.change):
            return inf
        if self.claim == 0:
            return inf if self.change > 0 else 0.0
        return self.change / self.claim


@dataclass(frozen=True)
class SensitivityReport:
    """All pairs tried on one subject. A pass proves little; a failure proves a fault."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding | None:
        """The finding of the largest ratio; None where nothing that is claimed can be checked."""
        return max(self.findings, key=lambda finding: finding.ratio, default=None)

    @property
    def ratio(self) -> float:
        """The ratio of the worst finding: what was seen, over what is claimed."""
        return 0.0 if self.worst is None else self.worst.ratio

    @property
    def passed(self) -> bool:
        return self.ratio <= 1 + ROUNDING

    def require(self) -> None:
        """Do nothing if the check passed.

        Raises:
            PrivacyError: it did not; names the neighbours that were found.
        """
        if self.passed or self.worst is None:
            return
        worst = self.worst
        change = (
            f"changes by {worst.change:.4g} where {worst.claim:.4g} is claimed ({worst.edit}, "
            f"{worst.newcomer})"
        )
        problem = f"{worst.released} of {self.subject} {change}"
        remedy = "declare the coupling that the loss has, or use a mechanism valid for it"
        raise PrivacyError(problem, field="sensitivity", value=round(worst.ratio, 3), remedy=remedy)
