"""The table of the self-test: what counts, what replaces what, and what its lines say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import audit_self_test as bench
from bench.harness import read_rows
from secure_fl.audit.suite.cases import CaseFile, Trial
from secure_fl.audit.suite.document import write_record


def kept(folder: Path, fault: str, verdicts: list[str], code: str = "now") -> None:
    trials = [Trial(seed, said, "", 2.0) for seed, said in enumerate(verdicts)]  # type: ignore[arg-type]
    case = CaseFile("0", code, "masks", "ab" * 32, fault, tuple(trials))
    write_record(folder / f"masks-{fault or 'honest'}-{code}.json", case)


def test_trials_become_rows_and_rows_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "code_digest", lambda: "now")
    trials, results = tmp_path / "trials", tmp_path / "results"
    trials.mkdir()
    results.mkdir()
    kept(trials, "mask off", ["broken"] * 3)
    kept(trials, "", ["held", "held", "broken"])
    kept(trials, "of other software", ["held"] * 3, "before")
    assert bench.collect(trials, results) == 2
    kept(trials, "mask off", ["broken", "held", "not tried", "broken"])
    assert bench.collect(trials, results) == 2
    rows = read_rows(bench.CSV, results)
    counts = ("fault", "seeds", "broken", "held", "stopped", "seconds")
    assert [[row[name] for name in counts] for row in rows] == [
        ["", "3", "1", "2", "0", "2.0"],
        ["mask off", "4", "2", "1", "1", "2.0"],
    ]
    assert all(row["commit"] and row["machine"] and row["versions"] for row in rows)
    lines = bench.table(rows).splitlines()
    assert any(each.startswith("| masks | 3 | 1 | 2 of 4 | 1 | 2 of 3 | 1 |") for each in lines)
    assert any(each.startswith("| cohort | 2 | 0 | - | 0 | - | 0 |") for each in lines)
    assert lines[-1].startswith("Commits `")
