"""What the audit's self-test saw: every planted fault, and every honest run, over many seeds.

    secure-fl audit --self-test --seeds 20 --out DIR    # hours of a core; after Ctrl-C it goes on
    python -m bench.audit_self_test DIR                 # its trials so far, into results/
    python -m bench.audit_self_test --page              # the table of docs/auditing.md

A row for each fault in its small run, and for each small run without one, which all its faults
share: at how many seeds the check said `broken`, `held`, or was stopped, and the mean processor
seconds of one. Of the folder's trials those count that the source code that is here made; a row
of the same fault is replaced. Rows go to `results/audit_self_test.csv`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from bench.harness import RESULTS, ROOT, append_row, provenance, read_rows
from bench.pages import fill, sheet
from secure_fl.audit.suite.cases import CaseFile
from secure_fl.audit.suite.catalogue import checks, faults
from secure_fl.audit.suite.document import read_record
from secure_fl.federation.policy.installed import code_digest

CSV, PAGE = "audit_self_test.csv", ROOT / "docs" / "auditing.md"
COLUMNS = ("check", "faults", "tried", "caught", "honest runs", "passed", "false alarms")


def row_of(case: CaseFile) -> dict[str, object]:
    """One case's."""
    said = Counter(each.verdict for each in case.trials)
    return {
        "check": case.check,
        "fault": case.fault,
        "run": case.run[:12],
        "seeds": len(case.trials),
        "broken": said["broken"],
        "held": said["held"],
        "stopped": said["not tried"],
        "seconds": round(fmean(each.seconds for each in case.trials), 2),
    }


def collect(folder: Path, into: Path = RESULTS) -> int:
    """Put a self-test's trials into the table; how many cases there were."""
    here = code_digest()
    kept = [read_record(path, CaseFile) for path in sorted(folder.glob("*.json"))]
    made = [row_of(each) for each in kept if each.code == here and each.trials]
    where = provenance(["scikit-learn", "scipy"])
    for row in made:
        append_row(CSV, row, where, into)
    rows = newest(read_rows(CSV, into))
    (into / CSV).unlink(missing_ok=True)
    for row in rows:
        append_row(CSV, dict(row), {}, into)
    return len(made)


def newest(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Of every fault its last row, and of the runs without one those that these faults share: a
    run has another digest once a setting has another default.
    """
    faults_ = {(row["check"], row["fault"]): row for row in rows if row["fault"]}
    shared = {(row["check"], row["run"]) for row in faults_.values()}
    honest = {(row["check"], row["run"]): row for row in rows if not row["fault"]}
    return [row for key, row in honest.items() if key in shared] + list(faults_.values())


def table(rows: Sequence[dict[str, str]]) -> str:
    """A line for each check, and one for all: a fault, or a run, counts as many times as it was
    tried at a seed.
    """
    planted = Counter(fault.check for fault in faults())
    names = [each.name for each in checks()]
    lines = [_line(name, planted[name], [r for r in rows if r["check"] == name]) for name in names]
    lines.append(_line("all", planted.total(), rows))
    commits = ", ".join(f"`{each}`" for each in _all(rows, "commit"))
    machines = "; ".join(_all(rows, "machine"))
    return f"{sheet(COLUMNS, lines)}\n\nCommits {commits}; {machines}."


def _line(name: str, faults_: int, rows: Sequence[dict[str, str]]) -> list[str]:
    bad, good = ([r for r in rows if bool(r["fault"]) is planted] for planted in (True, False))
    caught, passed = _share(bad, "broken"), _share(good, "held")
    cells = [name, faults_, len(bad), caught, len(good), passed]
    return [*map(str, cells), str(_sum(good, "broken"))]


def _share(rows: Sequence[dict[str, str]], column: str) -> str:
    return f"{_sum(rows, column)} of {_sum(rows, 'seeds')}" if rows else "-"


def _sum(rows: Iterable[dict[str, str]], column: str) -> int:
    return sum(int(row[column]) for row in rows)


def _all(rows: Sequence[dict[str, str]], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def main() -> None:
    """Collect a folder's trials, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(f"{collect(arguments.folder)} cases in {RESULTS / CSV}")
    if arguments.page:
        print(fill(PAGE, lambda _: table(read_rows(CSV))))


if __name__ == "__main__":
    main()
