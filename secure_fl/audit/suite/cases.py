"""What a self-test tries: each small run with every fault that is planted in it, and once without,
for all faults that share the run and the check; and the file of a case, which grows by a trial at a
time.

**Guarantee**: a trial that was kept is one of this very software, of the same check, run, fault and
seed. **Assumes**: nobody edits the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secure_fl import __version__
from secure_fl.audit.check import Depth, Fault
from secure_fl.audit.outcome import Outcome, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import check_at
from secure_fl.audit.suite.document import read_record, write_record
from secure_fl.config_file import dump_config
from secure_fl.errors import AuditError
from secure_fl.files import is_file
from secure_fl.records import Record

_LEAST = 1.0
"""Seconds of a trial, roughly, however little the check itself does."""


@dataclass(frozen=True)
class Case:
    """A check on a small run, with a fault in it or without.

    Attributes:
        address, number: where the fault is among the catalogue's; without a fault, that of one of
            those whose run it is.
        check: its name.
        run: which small run: of its settings, and of whether it has ended, a digest, hex.
        fault: its name; empty without.
        estimate: seconds that one seed takes, by the check's own estimate.
    """

    address: str
    number: int
    check: str
    run: str
    fault: str
    estimate: float

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.check}: {self.fault or 'nothing planted'}"


@dataclass(frozen=True)
class Trial(Record):
    """What a case's check said at one seed.

    Attributes:
        seed: of what the check drew.
        verdict, said: as in its outcome.
        seconds: of a processor, with all that was made for it; what runs beside it does not count.
    """

    seed: int
    verdict: Verdict
    said: str
    seconds: float

    @classmethod
    def of(cls, seed: int, outcome: Outcome, seconds: float) -> Trial:
        """From what the check said."""
        return cls(seed, outcome.verdict, outcome.said, round(seconds, 2))


@dataclass(frozen=True)
class CaseFile(Record):
    """A case's trials, and what they depend on.

    Attributes:
        version, code: of the software, as in `AuditDocument`.
        check, run, fault: as in `Case`.
        trials: in the order in which they were made.
    """

    version: str
    code: str
    check: str
    run: str
    fault: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Kept:
    """Trials in a folder; none is kept where it is None.

    Attributes:
        folder: a file a case.
        code: digest of the software's source.
    """

    folder: Path | None
    code: str

    def trials(self, case: Case) -> tuple[Trial, ...]:
        """Those that are there; a check that was stopped is tried anew."""
        made = self._file(case)
        if self.folder is None or not is_file(path := self._path(case)):
            return ()
        try:
            found = read_record(path, CaseFile)
        except AuditError:  # damaged, or another version's
            return ()
        if found != replace(made, trials=found.trials):
            return ()
        return tuple(each for each in found.trials if each.verdict != "not tried")

    def keep(self, case: Case, trials: Iterable[Trial]) -> None:
        """Write them, whole or not at all. Raises FileError: they cannot be written."""
        if self.folder is not None:
            write_record(self._path(case), replace(self._file(case), trials=tuple(trials)))

    def _file(self, case: Case) -> CaseFile:
        return CaseFile(__version__, self.code, case.check, case.run, case.fault)

    def _path(self, case: Case) -> Path:
        assert self.folder is not None
        named = hashlib.sha256(f"{case.run} {case.fault}".encode()).hexdigest()[:16]
        return self.folder / f"{case.check}-{named}.json"


def cases_of(chosen: Sequence[tuple[str, int, Fault]], checks: Sequence[str]) -> list[Case]:
    """One with each fault, and one without for each run and check that faults share; what is
    cheapest first, and what belongs together side by side.

    Args:
        chosen: faults, each with where it is: the address of a tuple, and its number there.
        checks: addresses of those that there are.

    Raises:
        AuditError: no check has the name that a fault gives.
    """
    by_name = {check.name: check for check in map(check_at, checks)}
    made = dict[tuple[str, str, str], Case]()
    for address, number, fault in chosen:
        if fault.check not in by_name:
            raise AuditError("no check has this name", "fault.check", fault.check, "register it")
        config = fault.config()
        told = f"{'ended' if fault.finished else 'settings'}\n{dump_config(config)}"
        run = hashlib.sha256(told.encode()).hexdigest()
        estimate = max(_LEAST, by_name[fault.check].estimate(Subject(config), Depth.MINUTES))
        for name in ("", fault.name):
            case = Case(address, number, fault.check, run, name, estimate)
            made.setdefault((fault.check, run, name), case)
    return sorted(made.values(), key=lambda each: (each.estimate, each.check, each.run))
