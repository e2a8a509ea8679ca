"""Two result files side by side: which kernels became slower, with a verdict by intervals.

    secure-fl bench kernels --compare before.csv after.csv

A cell is one provider at one size. Of each file it has a median, two quantiles and a number of
samples, from which an interval of the ratio of the true medians follows; a cell is slower or faster
where the whole interval lies more than 2 % beyond 1. Intervals are as wide as it takes for two
files of the same speed to differ in any cell once in twenty comparisons.

Assumes that logarithms of seconds scatter about normally and samples are independent; a machine
that is busy throughout one file and idle in the other looks like a change, and the files' loads are
printed for that. Files of different hardware are set side by side and nothing is asserted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, pi
from pathlib import Path
from statistics import NormalDist, median
from typing import Literal

from bench.harness import read_rows
from bench.kernels.plots import Record, measured, newest
from bench.kernels.registry import NAMES, kernel

Verdict = Literal["slower", "faster", "no difference"]
Cell = tuple[str, ...]
CELL = ("kernel", "provider", "setting", "mode", "rows", "dimension", "dtype", "threads")
NEGLIGIBLE = 1.02
"""Ratio of medians that is not worth a verdict."""
_FALSE_ALARMS = 0.05
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Change:
    """One cell in both files.

    Attributes:
        ratio: median seconds after over before; `low` and `high` bound it.
        ours: whether it is this project's own program, whose slowing down is a regression.
    """

    cell: Cell
    ratio: float
    low: float
    high: float
    ours: bool = True

    @property
    def verdict(self) -> Verdict:
        """By the interval, beyond what is negligible."""
        if self.low > NEGLIGIBLE:
            return "slower"
        return "faster" if self.high < 1 / NEGLIGIBLE else "no difference"

    @property
    def regression(self) -> bool:
        """Whether a program of ours became slower."""
        return self.ours and self.verdict == "slower"

    def __str__(self) -> str:
        name, provider, setting, _, rows, dimension, dtype, threads = self.cell
        which = f"{name}, {provider}{f' [{setting}]' if setting else ''}"
        size = f"{rows} rows, D = {dimension}, {dtype}, threads: {threads}"
        word = "REGRESSION" if self.regression else self.verdict
        times = f"{self.ratio:.2f} times the seconds ({self.low:.2f} to {self.high:.2f})"
        return f"{word}: {which} [{size}]: {times}"


@dataclass(frozen=True)
class Comparison:
    """Two files.

    Attributes:
        hardware: of each file.
        alone: cells that only one of the files has.
    """

    changes: list[Change]
    hardware: tuple[str, str]
    loads: tuple[float, float]
    alone: int

    @property
    def same(self) -> bool:
        """Whether both were measured on the same hardware, as far as both tell: older files name
        no caches.
        """
        first, second = (set(text.split(", ")) for text in self.hardware)
        return first <= second or second <= first

    @property
    def regressed(self) -> bool:
        """Whether a program of ours became slower on the same hardware."""
        return self.same and any(change.regression for change in self.changes)


def compare(before: Path, after: Path) -> Comparison:
    """Set the newest rows of two files of `bench kernels` side by side.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no measured row.
    """
    first, second = _records(before), _records(after)
    both = [cell for cell in first if cell in second]
    share = 1 - _FALSE_ALARMS / 2 / max(1, len(both))
    changes = [_change(cell, first[cell], second[cell], share) for cell in both]
    found = [list(records.values()) for records in (first, second)]
    loads = [median(float(record["load"] or 0) for record in records) for records in found]
    return Comparison(
        changes,
        (_hardware(found[0]), _hardware(found[1])),
        (loads[0], loads[1]),
        len(first) + len(second) - 2 * len(both),
    )


def lines(comparison: Comparison) -> list[str]:
    """What to tell of it: hardware, every cell that changed, and a count of the others."""
    told = [f"before: {comparison.hardware[0]}, load {comparison.loads[0]:.2f}"]
    told += [f"after:  {comparison.hardware[1]}, load {comparison.loads[1]:.2f}"]
    if not comparison.same:
        told.append("different hardware: ratios are shown, nothing is asserted across it")
    changes = sorted(comparison.changes, key=lambda change: -change.ratio)
    for change in changes:
        if not comparison.same or change.verdict != "no difference":
            told.append(str(change) if comparison.same else _ratio(change))
    counts: Mapping[str, int] = {
        "slower": sum(change.verdict == "slower" for change in changes),
        "faster": sum(change.verdict == "faster" for change in changes),
        "no difference": sum(change.verdict == "no difference" for change in changes),
    }
    if comparison.same:
        told.append(", ".join(f"{count} {word}" for word, count in counts.items()))
    told.append(f"{len(changes)} cells in both files, {comparison.alone} in one of them only")
    return told


def _ratio(change: Change) -> str:
    """The change without a verdict."""
    return str(change).partition(": ")[2]


def _records(path: Path) -> dict[Cell, Record]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    found = measured(newest(read_rows(path.name, path.parent)))
    if not found:
        raise ValueError(f"{path} holds no measured row")
    return {tuple(record[name] for name in CELL): record for record in found}


def _hardware(records: list[Record]) -> str:
    """The machines, or on a GPU its name."""
    found = dict.fromkeys(
        record["machine"] if record["device"] == "cpu" else record["device"] for record in records
    )
    return " and ".join(found)


def _change(cell: Cell, before: Record, after: Record, share: float) -> Change:
    from scipy.stats import t

    centre = log(float(after["y50"]) / float(before["y50"]))
    variances = [_variance(record) for record in (before, after)]
    fewest = min(int(record["samples"]) for record in (before, after))
    # two quantiles tell of the spread about what 0.6 of as many samples would
    freedom = max(1.0, 0.6 * (fewest - 1))
    half = float(t.ppf(share, freedom)) * sum(variances) ** 0.5
    return Change(
        cell, exp(centre), exp(centre - half), exp(centre + half), _is_ours(cell[0], cell[1])
    )


def _variance(record: Record) -> float:
    """Of the median's logarithm: π/2n times a normal sample's, from its 0.2 and 0.8 quantiles."""
    count = int(record["samples"])
    rank = 1 + 0.8 * (count - 1)
    # where an interpolated quantile of so few samples lies on average (Blom)
    reach = NormalDist().inv_cdf((rank - 0.375) / (count + 0.25))
    spread = log(float(record["y80"]) / float(record["y20"])) / (2 * reach)
    return pi / (2 * count) * float(max(spread, _LEAST_SPREAD)) ** 2


def _is_ours(name: str, provider: str) -> bool:
    """Whether the project answers for this program; a name that is no longer known counts."""
    if name not in NAMES:
        return True
    known = [each for each in kernel(name).providers if each.name == provider]
    return not known or any(each.ours for each in known)
