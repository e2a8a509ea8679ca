"""A self-test with toys: what is caught, what is missed, what is a false alarm, and that a fault
stays where it was planted.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from audit.suite import toys

from secure_fl.audit.suite.catalogue import check_addresses, checks, faults
from secure_fl.audit.suite.planting import try_fault
from secure_fl.audit.suite.self_test import FaultRow, SelfTest, self_test
from secure_fl.errors import AuditError

CHECKS = tuple(
    f"audit.suite.toys:{name}" for name in ("LOOKS", "BLIND", "NERVOUS", "DIES", "READS")
)
FAULTS = {fault.name: fault for fault in toys.FAULTS}


@pytest.mark.parametrize(
    ("name", "honest", "planted"),
    [
        ("unsound bank", "held", "broken"),
        ("never seen", "held", "held"),
        ("always seen", "broken", "broken"),
        ("other name", "held", "broken"),
    ],
)
def test_the_same_run_is_audited_with_and_without(name: str, honest: str, planted: str) -> None:
    trial = try_fault(FAULTS[name], 3, CHECKS)
    assert (trial.honest.verdict, trial.planted.verdict) == (honest, planted)
    assert toys.Bank.sound, "it does not outlive its context"


def test_a_check_that_does_not_apply_is_no_pass() -> None:
    trial = try_fault(replace(FAULTS["other name"], finished=False), 0, CHECKS)
    assert trial.honest.verdict == trial.planted.verdict == "not tried"
    assert "there is no folder" in trial.planted.said
    with pytest.raises(AuditError, match=r"fault\.check"):
        try_fault(replace(FAULTS["unsound bank"], check="gone"), 0, CHECKS)


def test_each_fault_has_a_process_of_its_own() -> None:
    only = ["stays", "kills"]
    told = self_test(
        seeds=(0, 1), only=only, jobs=2, addresses=["audit.suite.toys:FAULTS"], checks=CHECKS
    )
    rows = {row.fault: row for row in told.rows}
    assert list(rows) == only
    lasting = rows["stays"]
    assert (lasting.caught, lasting.passed, lasting.alarms) == (2, 1, 1), (
        "the honest run after it shows what it left behind"
    )
    assert (rows["kills"].caught, rows["kills"].said) == (
        0, ("its process ended with exit status -9",),
    )  # fmt: skip
    assert told.failed
    assert not told.ok


def test_the_verdict_over_all_faults() -> None:
    well = FaultRow("a", "c", 2, caught=2, passed=2, alarms=0, seconds=1.0)

    def of(*rows: FaultRow) -> SelfTest:
        return SelfTest("0", "0", rows)

    assert of(well).ok
    assert not of(well).failed
    assert of(well, replace(well, caught=1)).failed
    assert of(well, replace(well, passed=1, alarms=1)).failed
    stopped = of(well, replace(well, passed=1))
    assert not stopped.ok
    assert not stopped.failed, "an honest run that was not tried is neither"
    assert not of().ok, "nothing was planted"


def test_names_are_of_one_thing_each() -> None:
    names = [check.name for check in checks()]
    planted = [(fault.name, fault.check) for fault in faults()]
    assert len(set(names)) == len(names) == len(check_addresses())
    assert len(set(planted)) == len(planted)
    assert {fault.check for fault in faults()} <= set(names)
    assert all(name == name.lower() and " " not in name for name in names)
    assert all(check.tried and not check.tried.endswith(".") for check in checks())
