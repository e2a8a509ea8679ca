"""Hooks into an audit and into its self-test; override what you need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line listens, and has no torch until it needs it
    from secure_fl.audit.outcome import Outcome
    from secure_fl.audit.suite.cases import Case, Trial
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
    """Hooks into a self-test. A case is a check on a small run, with a fault in it or without."""

    def on_plan(self, cases: Sequence[Case], seeds: int, left: float) -> None:
        """What is tried, each at so many seeds; `left`: processor seconds for what is not kept."""

    def on_begin(self, case: Case) -> None:
        """A case begins, or goes on."""

    def on_trial(self, case: Case, trial: Trial, left: float) -> None:
        """A case was tried at a seed, and that is kept; `left`: processor seconds for the rest."""

    def on_end(self, case: Case) -> None:
        """A case is done, or its process has died."""

    def on_row(self, row: FaultRow) -> None:
        """A fault is done, and the run without it too."""
