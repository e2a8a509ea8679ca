"""The order of measuring: the cheapest size of any kernel first, none twice, within some minutes.

Rows are appended as they are found, so a measurement that was stopped goes on where it was: what
the file holds from the same commit, machine and versions is not measured again. At a commit with
changes of its own nothing is known to be the same, and all is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.harness import append_row, provenance, read_rows
from bench.kernels.case import Case, Kernel
from bench.kernels.peers import PACKAGES
from bench.kernels.run import CSV, History, Options, Say, rows_of

_SAME = ("machine", "versions", "commit")
_SIZE = ("kernel", "rows", "dimension", "dtype", "device", "threads")


@dataclass(frozen=True)
class Cell:
    """One kernel at one size."""

    kernel: Kernel
    case: Case

    @property
    def work(self) -> float:
        """About how much there is to do, in flops."""
        return self.kernel.work(self.case)

    def __str__(self) -> str:
        case = self.case
        threads = f"{case.threads} thread{'s' if case.threads > 1 else ''}"
        size = f"{case.rows} rows, dimension {case.dimension}, {case.dtype}, {threads}"
        return f"{self.kernel.name}: {size}, {case.device}"


@dataclass
class Pace:
    """Seconds that cells took, to predict those of larger ones."""

    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def predict(self, cell: Cell) -> float:
        """Seconds, no fewer than the kernel's last cell took; 0 where nothing is known."""
        work, seconds = self.known.get(cell.kernel.name, (cell.work, 0.0))
        return seconds * max(1.0, cell.work / work)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Remember what a cell took."""
        self.known[cell.kernel.name] = cell.work, seconds


def walk(
    cells: Sequence[Cell],
    options: Options,
    folder: Path,
    say: Say,
    minutes: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Measure the cells, cheapest first, and append their rows to the folder's CSV as they come.

    Args:
        minutes: what all of it may take; a cell that is predicted to take longer than is left is
            named and not begun. None takes as long as it takes.
    """
    history, pace, where, began = History(), Pace(), provenance(PACKAGES), clock()
    known = done(folder, where)
    left = [cell for cell in cells if not _is_done(cell, known)]
    if len(left) < len(cells):
        say(f"{len(cells) - len(left)} of {len(cells)} sizes are in {folder / CSV} already")
    unfinished = 0
    for number, cell in enumerate(sorted(left, key=lambda cell: cell.work), 1):
        spent = clock() - began
        if minutes is not None and (spent >= 60 * minutes or _beyond(cell, pace, spent, minutes)):
            unfinished += 1
            continue
        of = "" if minutes is None else f" of {minutes:g}"
        say(f"{number}/{len(left)}, {spent / 60:.1f}{of} minutes; {cell}")
        for row in rows_of(cell.kernel, cell.case, options, history, say):
            append_row(CSV, row, where, folder)
        pace.learn(cell, clock() - began - spent)
    if unfinished:
        say(f"{unfinished} sizes did not fit into {minutes:g} minutes; the same command goes on")


def _beyond(cell: Cell, pace: Pace, spent: float, minutes: float) -> bool:
    return spent + pace.predict(cell) > 60 * minutes


def done(folder: Path, where: dict[str, str]) -> dict[tuple[str, ...], set[tuple[str, str]]]:
    """The sizes that the folder's CSV holds from the same commit, machine and versions, with
    their providers.
    """
    found: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    if where["commit"] == "unknown" or where["commit"].endswith("+"):
        return found
    for row in read_rows(CSV, folder):
        if all(row[name] == where[name] for name in _SAME):
            size = tuple(row[name] for name in _SIZE)
            found.setdefault(size, set()).add((row["provider"], row["setting"]))
    return found


def _is_done(cell: Cell, known: dict[tuple[str, ...], set[tuple[str, str]]]) -> bool:
    case = cell.case
    device = case.device if case.device == "cpu" else torch.cuda.get_device_name()
    size = (
        cell.kernel.name, str(case.rows), str(case.dimension), case.dtype, device, str(case.threads)
    )  # fmt: skip
    return {provider.key for provider in cell.kernel.providers} <= known.get(size, set())
