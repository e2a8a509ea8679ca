"""Whether the audit would see a fault: every planted one must be called broken, and the same run
without it must be called held.

**Guarantee**: a fault lives in a process of its own, which ends with it.
**Not covered**: faults that nobody planted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_fl import __version__
from secure_fl.audit.check import Fault
from secure_fl.audit.suite.catalogue import check_addresses, fault_addresses, faults_at
from secure_fl.audit.suite.listening import SelfTestListener
from secure_fl.audit.suite.planning import check_seed, known
from secure_fl.audit.suite.planting import Trial
from secure_fl.audit.suite.worker import answered
from secure_fl.federation.policy.installed import code_digest
from secure_fl.files import parse_json
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
        seconds: of all of the check's runs together, without starting a process.
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
        seeds: of what the checks draw; both runs of every fault are audited at each.
        only: names of faults; all when empty.
        jobs: how many faults at a time, each in a process of its own.
        addresses, checks, listener: of faults and checks, the catalogue's by default; hooks.

    Raises:
        AuditError: no such fault or seed, or processes do not start.
    """
    check_seed(min(seeds, default=0))
    check_seed(max(seeds, default=0))
    told, rows = listener or SelfTestListener(), dict[int, FaultRow]()
    where = fault_addresses() if addresses is None else addresses
    found = [(each, at, fault) for each in where for at, fault in enumerate(faults_at(each))]
    known(only, [fault.name for _, _, fault in found], "--only")
    chosen = [each for each in found if not only or each[2].name in only]
    faults = [fault for _, _, fault in chosen]
    told.on_plan(faults)
    common = {"seeds": list(seeds), "checks": list(checks or check_addresses())}
    for number, data, status in answered(
        [{**common, "address": address, "number": at} for address, at, _ in chosen],
        jobs,
        lambda at, share: told.on_progress(faults[at].name, share),
        lambda at: told.on_begin(faults[at].name),
        fresh=True,
    ):
        rows[number] = _row(faults[number], len(seeds), data, status)
        told.on_row(rows[number])
    return SelfTest(__version__, code_digest(), tuple(rows[at] for at in range(len(chosen))))


def _row(fault: Fault, seeds: int, data: bytes | None, status: int | None) -> FaultRow:
    if data is None:
        said = (f"its process ended with exit status {status}",)
        return FaultRow(fault.name, fault.check, seeds, 0, 0, 0, 0.0, said)
    trials = parse_json(data, tuple[Trial, ...], field=fault.name, value="", remedy="")
    honest, planted = [each.honest for each in trials], [each.planted for each in trials]
    wrong = [f"honest: {each.verdict}: {each.said}" for each in honest if each.verdict != "held"]
    wrong += [f"planted: {each.verdict}: {each.said}" for each in planted if _missed(each.verdict)]
    return FaultRow(
        fault.name,
        fault.check,
        seeds,
        caught=sum(not _missed(each.verdict) for each in planted),
        passed=sum(each.verdict == "held" for each in honest),
        alarms=sum(each.verdict == "broken" for each in honest),
        seconds=round(sum(each.seconds for each in [*honest, *planted]), 2),
        said=tuple(dict.fromkeys(wrong)),
    )


def _missed(verdict: str) -> bool:
    return verdict != "broken"
