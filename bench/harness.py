"""What every measurement records about where it ran, and a CSV that grows row by row."""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from secure_fl.finished.summary import versions
from secure_fl_kernels.processor import processor

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
Cell = TypeVar("Cell")


def provenance(packages: Iterable[str] = ()) -> dict[str, str]:
    """Date, machine with its instruction set and caches, versions and commit of a measurement;
    `packages` are named too where they are installed.
    """
    found = versions() | {name: version for name in packages if (version := _version(name))}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, {platform.system()}",
        "versions": " ".join(f"{name} {version}" for name, version in found.items()),
        "commit": _commit(),
    }


def command_line(about: str | None, *what: str, seeds: int = 3) -> argparse.ArgumentParser:
    """A measurement's: one of several things, the first by default, over so many seeds."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=what, default=what[0])
    told = f"seeds 0 to SEEDS - 1 (default {seeds})"
    parser.add_argument("--seeds", type=int, default=seeds, help=told)
    return parser


def read_rows(name: str, folder: Path = RESULTS) -> list[dict[str, str]]:
    """Rows measured so far."""
    path = folder / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(
    name: str, row: dict[str, object], where: dict[str, str], folder: Path = RESULTS
) -> None:
    """Add one row with the `provenance()` taken when its measurement began.

    Raises:
        ValueError: the file has other columns.
    """
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    full = {**row, **where}
    new = not path.exists()
    if not new and (columns := _columns(path)) != list(full):
        raise ValueError(
            f"{path} has columns {columns}, not {list(full)}: move it "
            "away, or choose another folder"
        )
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(full), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(full)


def measure_missing(
    name: str,
    kind: type[Cell],
    cells: Iterable[Cell],
    measure: Callable[[Cell], dict[str, object]],
    packages: Iterable[str] = (),
) -> Iterator[dict[str, object]]:
    """Measure the cells that have no row yet, in order, and add each row as it is measured.

    Args:
        name: of the file.
        kind: of the cells, a dataclass whose fields are columns of the file.
        cells: what should have a row.
        measure: the whole row of a cell.
        packages: as of `provenance`.
    """
    where, names = provenance(packages), [each.name for each in fields(kind)]  # type: ignore[arg-type]
    done = {tuple(row[each] for each in names) for row in read_rows(name)}
    for cell in cells:
        key = tuple(str(getattr(cell, each)) for each in names)
        if key not in done:
            done.add(key)
            row = measure(cell)
            append_row(name, row, where)
            yield row


def _columns(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Short commit, with `+` where tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "secure_fl", "kernels", "bench/*.py"],
            check=False,
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
