"""Hooks into an audit and into its self-test; override what you need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line listens, and has no torch until it needs it
    from secure_fl.audit.check import Fault
    from secure_fl.audit.outcome import Outcome
    from secure_fl.audit.suite.planning import Plan
    from secure_fl.audit.suite.self_test import FaultRow


class Listener:
    """Hooks into an audit."""

    def on_plan(self, plan: Plan, kept: Sequence[str]) -> None:
        """What will be done; `kept`: checks whose outcome is there from an audit before."""

    def on_begin(self, check: str) -> None:
        """A check begins."""

    def on_progress(self, check: str, share: float) -> None:
        """A check has done so much of its work."""

    def on_outcome(self, outcome: Outcome) -> None:
        """A check has ended, and its outcome is written."""


class SelfTestListener:
    """Hooks into a self-test."""

    def on_plan(self, faults: Sequence[Fault]) -> None:
        """What will be planted."""

    def on_begin(self, fault: str) -> None:
        """A fault's process begins."""

    def on_progress(self, fault: str, share: float) -> None:
        """So much of a fault's seeds is done."""

    def on_row(self, row: FaultRow) -> None:
        """A fault is done."""
