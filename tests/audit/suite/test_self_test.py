"""A self-test with toys: what is caught, what is missed, what is a false alarm, and that a fault
stays where it was planted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from audit.suite import toys
from audit.suite.in_process import here

from secure_fl.audit.suite import self_test as module
from secure_fl.audit.suite.cases import Case, Trial
from secure_fl.audit.suite.catalogue import check_addresses, checks, faults
from secure_fl.audit.suite.listening import SelfTestListener
from secure_fl.audit.suite.planting import Planting
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
    planting = Planting.of(FAULTS[name], CHECKS)
    for _ in range(2):
        assert planting.tried(3, planted=False).verdict == honest
        assert planting.tried(3, planted=True).verdict == planted
    assert toys.Bank.sound, "it does not outlive its context"


def test_a_check_that_does_not_apply_is_no_pass() -> None:
    planting = Planting.of(replace(FAULTS["other name"], finished=False), CHECKS)
    for planted in (False, True):
        outcome = planting.tried(0, planted=planted)
        assert outcome.verdict == "not tried"
        assert "there is no folder" in outcome.said
    with pytest.raises(AuditError, match=r"fault\.check"):
        Planting.of(replace(FAULTS["unsound bank"], check="gone"), CHECKS)


def test_each_fault_has_a_process_of_its_own() -> None:
    only = ["stays", "kills"]
    told = self_test(
        seeds=(0, 1), only=only, jobs=2, addresses=["audit.suite.toys:FAULTS"], checks=CHECKS
    )
    rows = {row.fault: row for row in told.rows}
    assert list(rows) == only
    lasting = rows["stays"]
    assert (lasting.caught, lasting.passed, lasting.alarms) == (2, 2, 0), "it stays where it was"
    ended = "not tried: its process ended with exit status -9"
    assert rows["kills"].said == (f"honest: {ended}", f"planted: {ended}")
    assert (rows["kills"].caught, rows["kills"].passed) == (0, 0)
    assert told.failed
    assert not told.ok


class Heard(SelfTestListener):
    """Notes what is tried, and stops a self-test after some trials."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.planned, self.left = most, list[str](), list[float]()
        self.trials = list[tuple[str, int]]()

    def on_plan(self, cases: Sequence[Case], seeds: int, left: float) -> None:
        self.planned, self.left = [each.name for each in cases], [left]

    def on_trial(self, case: Case, trial: Trial, left: float) -> None:
        self.trials.append((case.name, trial.seed))
        self.left.append(left)
        if len(self.trials) == self.most:
            raise KeyboardInterrupt


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SelfTest]:
    """Toys' faults that share a run, in this process."""
    monkeypatch.setattr(module, "answered", here)
    only = ["unsound bank", "stays", "never seen"]
    toys_alone = {"addresses": ["audit.suite.toys:FAULTS"], "checks": CHECKS, "only": only}
    return partial(self_test, seeds=range(3), **toys_alone)


@pytest.fixture(autouse=True)
def sound() -> Iterator[None]:
    yield
    toys.Bank.sound = True


def test_a_run_without_a_fault_is_tried_once_a_seed(quick: Callable[..., SelfTest]) -> None:
    heard = Heard()
    rows = {row.fault: row for row in quick(listener=heard).rows}
    assert heard.planned == [
        "blind: nothing planted",
        "blind: never seen",
        "looks: nothing planted",
        "looks: unsound bank",
        "looks: stays",
    ]
    assert heard.trials == [(name, seed) for name in heard.planned for seed in range(3)]
    assert [rows[name].passed for name in ("unsound bank", "stays", "never seen")] == [3, 3, 3]
    assert rows["never seen"].said == (
        "planted: held: seen at seed 0",
        *rows["never seen"].said[1:],
    )
    assert heard.left == sorted(heard.left, reverse=True)
    assert (heard.left[0], heard.left[-1]) == (15.0, 0.0)


def test_a_self_test_that_was_stopped_goes_on(
    quick: Callable[..., SelfTest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "kept", listener=(first := Heard(8)))
    whole = quick(tmp_path / "kept", listener=(second := Heard()))
    assert len(first.trials) == 8
    assert len(second.trials) == 15 - 8
    assert not {*first.trials} & {*second.trials}
    assert [row.seeds for row in whole.rows] == [3, 3, 3]
    again = quick(tmp_path / "kept", listener=(third := Heard()))
    assert again == whole
    assert not third.trials
    quick(tmp_path / "kept", seeds=[7], listener=(other := Heard()))
    assert len(other.trials) == 5, "seeds that were not tried yet"
    monkeypatch.setattr(module, "code_digest", lambda: "other")
    quick(tmp_path / "kept", listener=(anew := Heard()))
    assert len(anew.trials) == 15, "trials are of the software that made them"
    (tmp_path / "kept" / "manifest.json").touch()
    with pytest.raises(AuditError, match="--out"):
        quick(tmp_path / "kept")


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
