"""What every measurement records about where it ran, and a CSV that grows row by row."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import subprocess
from pathlib import Path

from secure_fl.summary import versions

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, str]:
    """Date, machine, versions and commit of a measurement."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.system()}",
        "versions": " ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": _commit(),
    }


def read_rows(name: str) -> list[dict[str, str]]:
    """Rows measured so far."""
    path = RESULTS / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(name: str, row: dict[str, object], where: dict[str, str]) -> None:
    """Add one row with the `provenance()` taken when its measurement began."""
    path = RESULTS / name
    path.parent.mkdir(exist_ok=True)
    full = {**row, **where}
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(full), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(full)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """Short commit, with `+` where tracked files differ from it."""
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "secure_fl", "kernels", "bench/*.py"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
