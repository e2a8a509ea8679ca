"""How far an audit or its self-test is: bars on a terminal, a line for each check elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.progress import Progress, TaskID

from secure_fl.audit.suite.listening import Listener, SelfTestListener
from secure_fl.cli.console import Sheet, err
from secure_fl.quantities import counted, duration

if TYPE_CHECKING:
    from secure_fl.audit.check import Depth
    from secure_fl.audit.outcome import Outcome
    from secure_fl.audit.suite.cases import Case, Trial
    from secure_fl.audit.suite.planning import Plan
    from secure_fl.audit.suite.self_test import FaultRow


class _Bars:
    """A bar for each thing that is under way; none where there is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(console=err, transient=True, disable=not err.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._done, self._total = 0, 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _begin(self, name: str) -> None:
        self._tasks[name] = self._bars.add_task(name, total=1.0)

    def _progress(self, name: str, share: float) -> None:
        if name in self._tasks:
            self._bars.update(self._tasks[name], completed=share)

    def _remove(self, name: str) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))

    def _end(self, name: str, said: str, style: str = "") -> None:
        self._done += 1
        self._remove(name)
        err.print(f"{self._done}/{self._total} {name}: {said}", style=style or None)


class AuditShown(_Bars, Listener):
    """Of an audit: the estimate first."""

    def __init__(self, depth: Depth, jobs: int) -> None:
        super().__init__()
        self._depth, self._jobs = depth, jobs

    def on_plan(self, plan: Plan, kept: Sequence[str]) -> None:
        left = [each for each in plan.chosen if each.check.name not in kept]
        self._total = len(left)
        rows = [[each.check.name, round(each.seconds)] for each in left]
        err.print(Sheet("estimate", ["check", "seconds"], rows))
        for name in kept:
            err.print(f"{name}: kept from before")
        at_a_time = "one after the other" if self._jobs == 1 else f"{self._jobs} at a time"
        err.print(f"about {duration(plan.seconds(self._jobs))} in all, {at_a_time}")
        if self._depth == "minutes" and not plan.is_quick:
            told = f"{duration(plan.seconds(2))} on two cores, and more than the ten minutes"
            err.print(f"this is {told} that depth minutes is to take", style="yellow")

    def on_begin(self, check: str) -> None:
        self._begin(check)

    def on_progress(self, check: str, share: float) -> None:
        self._progress(check, share)

    def on_outcome(self, outcome: Outcome) -> None:
        style = {"broken": "red", "not tried": "yellow"}.get(outcome.verdict, "")
        took = duration(outcome.seconds)
        self._end(outcome.check, f"{outcome.verdict}: {outcome.said} ({took})", style)


class SelfTestShown(_Bars, SelfTestListener):
    """Of a self-test: the estimate first, and again after each fault."""

    def __init__(self) -> None:
        super().__init__()
        self._seeds, self._left = 1, 0.0
        self._tried = Counter[str]()

    def on_plan(self, cases: Sequence[Case], seeds: int, left: float) -> None:
        self._seeds, self._left = seeds, left
        self._total = sum(bool(each.fault) for each in cases)
        runs = counted(len(cases) - self._total, "run")
        planted = f"{counted(self._total, 'fault')} in {runs}, {counted(seeds, 'seed')} each"
        err.print(f"{planted}; about {duration(left)} of a core for what is not kept from before")

    def on_begin(self, case: Case) -> None:
        self._begin(case.name)

    def on_trial(self, case: Case, trial: Trial, left: float) -> None:
        self._left = left
        self._tried[case.name] += 1
        self._progress(case.name, self._tried[case.name] / self._seeds)

    def on_end(self, case: Case) -> None:
        self._remove(case.name)

    def on_row(self, row: FaultRow) -> None:
        told = f"caught {row.caught}/{row.seeds}, honest passed {row.passed}/{row.seeds}"
        told += f" ({duration(row.seconds)}; about {duration(self._left)} of a core left)"
        self._end(row.fault, told, "" if row.ok else "red")
