"""Whether the audit would see a fault: every planted one must be called broken, and the same run
without it must be called held.

**Guarantee**: a fault lives in a process of its own, which ends with it. A run without a fault is
tried once a seed, for all faults that share it and the check.
**Not covered**: faults that nobody planted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from secure_fl import __version__
from secure_fl.audit.check import Fault
from secure_fl.audit.suite.cases import Case, Kept, Trial, cases_of
from secure_fl.audit.suite.catalogue import check_addresses, fault_addresses, faults_at
from secure_fl.audit.suite.listening import SelfTestListener
from secure_fl.audit.suite.planning import check_seed, known
from secure_fl.audit.suite.worker import answered
from secure_fl.errors import AuditError
from secure_fl.federation.policy.installed import code_digest
from secure_fl.files import held, is_file, make_folder, parse_json, remove_unfinished
from secure_fl.paths import path_of
from secure_fl.records import Record


@dataclass(frozen=True)
class FaultRow(Record):
    """One fault over several seeds.

    Attributes:
        fault, check: names of what was planted, and of who must see it.
        seeds: how often both runs were audited.
        caught: how often the planted one was called broken.
        passed: how often the honest one was called held.
        alarms: how often the honest one was called broken.
        seconds: of a processor, with the fault; honest runs are shared.
        said: what was said where something else was expected, once each.
    """

    fault: str
    check: str
    seeds: int
    caught: int
    passed: int
    alarms: int
    seconds: float
    said: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the fault was caught and the honest run passed at every seed."""
        return self.caught == self.passed == self.seeds


@dataclass(frozen=True)
class SelfTest(Record):
    """What planting all faults showed.

    Attributes:
        version, code: of the software, as in `AuditDocument`.
        rows: one a fault, in the catalogue's order.
    """

    version: str
    code: str
    rows: tuple[FaultRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every fault was caught, and every honest run passed."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def failed(self) -> bool:
        """Whether a fault was missed, or an honest run called broken."""
        return any(row.caught < row.seeds or row.alarms for row in self.rows)


def self_test(
    out: Path | str | None = None,
    *,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    jobs: int = 1,
    addresses: Sequence[str] | None = None,
    checks: Sequence[str] | None = None,
    listener: SelfTestListener | None = None,
) -> SelfTest:
    """Plant every fault, and audit its small run with it and without it.

    Args:
        out: folder of trials, a file for each fault and each honest run, so that a self-test that
            was stopped goes on; none is kept by default.
        seeds: of what the checks draw; both runs of every fault are audited at each.
        only: names of faults; all when empty.
        jobs: how many trials at a time, in processes of their own.
        addresses, checks, listener: of faults and checks, the catalogue's by default; hooks.

    Raises:
        AuditError: no such fault or seed, a fault for which there is no check, or processes do not
            start; or `out` is a run's folder.
        RunFolderError, FileError: another self-test writes to the folder; nothing can be written.
    """
    check_seed(min(seeds, default=0))
    check_seed(max(seeds, default=0))
    chosen = _chosen(only, fault_addresses() if addresses is None else addresses)
    given = list(checks or check_addresses())
    with ExitStack() as holding:
        folder = None if out is None else _place(path_of(out, "out"))
        if folder is not None:
            holding.enter_context(held(folder))
            remove_unfinished(folder)
        kept = Kept(folder, code_digest())
        running = _Running(cases_of(chosen, given), seeds, kept, listener or SelfTestListener())
        running.run(given, jobs)
    rows = {(row.fault, row.check): row for row in running.rows.values()}
    order = [rows[fault.name, fault.check] for _, _, fault in chosen]
    return SelfTest(__version__, kept.code, tuple(order))


def _chosen(only: Sequence[str], addresses: Sequence[str]) -> list[tuple[str, int, Fault]]:
    """Faults of these names, each with where it is. Raises AuditError: a name is none's."""
    found = [(each, at, fault) for each in addresses for at, fault in enumerate(faults_at(each))]
    known(only, [fault.name for _, _, fault in found], "--only")
    return [each for each in found if not only or each[2].name in only]


def _place(folder: Path) -> Path:
    """Made, where it is not there. Raises AuditError: it is a run's."""
    if is_file(folder / "manifest.json"):
        remedy = "name a folder that lies elsewhere"
        raise AuditError(
            "is a run's folder, which would be another one", "--out", str(folder), remedy
        )
    make_folder(folder)
    return folder


@dataclass
class _Running:
    """A self-test under way.

    Attributes:
        cases: all of them, in the order in which they are tried.
        trials: of each case so far, by seed.
        rows: of faults that are done, and their honest runs with them.
    """

    cases: Sequence[Case]
    seeds: Sequence[int]
    kept: Kept
    told: SelfTestListener
    trials: dict[Case, dict[int, Trial]] = field(default_factory=dict)
    rows: dict[Case, FaultRow] = field(default_factory=dict)

    def run(self, checks: Sequence[str], jobs: int) -> None:
        """Try whatever is not kept."""
        for case in self.cases:
            there = {trial.seed: trial for trial in self.kept.trials(case)}
            self.trials[case] = {seed: there[seed] for seed in self.seeds if seed in there}
        left = [case for case in self.cases if self._left(case)]
        self.told.on_plan(self.cases, len(self.seeds), self.seconds_left())
        self._settle()
        for number, data, status in answered(
            [_job(case, self._left(case), checks) for case in left],
            jobs,
            lambda at, data: self._take(left[at], data),
            lambda at: self.told.on_begin(left[at]),
        ):
            if data is None:
                said = f"its process ended with exit status {status}"
                for seed in self._left(left[number]):
                    self.trials[left[number]][seed] = Trial(seed, "not tried", said, 0.0)
            self.told.on_end(left[number])
            self._settle()

    def seconds_left(self) -> float:
        """Of a processor that the rest takes: as many a seed as a case took so far, or else as its
        check says, corrected by how right checks were.
        """
        took = {
            case: [each.seconds for each in made.values()] for case, made in self.trials.items()
        }
        said = sum(case.estimate * len(seconds) for case, seconds in took.items())
        right = sum(map(sum, took.values())) / said if said else 1.0
        return sum(
            len(self._left(case)) * (fmean(seconds) if seconds else right * case.estimate)
            for case, seconds in took.items()
        )

    def _left(self, case: Case) -> list[int]:
        return [seed for seed in self.seeds if seed not in self.trials[case]]

    def _take(self, case: Case, data: bytes) -> None:
        """A trial, as it comes."""
        trial = parse_json(data, Trial, field=case.name, value="", remedy="")
        self.trials[case][trial.seed] = trial
        self.kept.keep(case, self.trials[case].values())
        self.told.on_trial(case, trial, self.seconds_left())

    def _settle(self) -> None:
        """Rows of faults of which all is known now."""
        honest = {(case.check, case.run): case for case in self.cases if not case.fault}
        for case in self.cases:
            whole = (case, honest[case.check, case.run])
            if case.fault and case not in self.rows and not any(map(self._left, whole)):
                row = _row(case, *(tuple(self.trials[each].values()) for each in whole))
                self.rows[case] = row
                self.told.on_row(row)


def _job(case: Case, seeds: Sequence[int], checks: Sequence[str]) -> dict[str, object]:
    """As `worker.Tester` takes it."""
    told = {"address": case.address, "number": case.number, "planted": bool(case.fault)}
    return {**told, "seeds": list(seeds), "checks": list(checks)}


def _row(case: Case, planted: Sequence[Trial], honest: Sequence[Trial]) -> FaultRow:
    wrong = [f"honest: {each.verdict}: {each.said}" for each in honest if each.verdict != "held"]
    caught = [each for each in planted if each.verdict == "broken"]
    wrong += [f"planted: {each.verdict}: {each.said}" for each in planted if each not in caught]
    return FaultRow(
        case.fault,
        case.check,
        len(planted),
        caught=len(caught),
        passed=sum(each.verdict == "held" for each in honest),
        alarms=sum(each.verdict == "broken" for each in honest),
        seconds=round(sum(each.seconds for each in planted), 2),
        said=tuple(dict.fromkeys(wrong)),
    )
