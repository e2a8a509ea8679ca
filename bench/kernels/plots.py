"""Plots of `kernels.csv`: seconds, extra memory and share of the floor against rows, a line a
provider, the 0.2 to 0.8 quantiles as a band.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness import read_rows
from bench.kernels.case import NAIVE
from bench.kernels.run import CSV

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = dict[str, str]
SAME = ("kernel", "setting", "dimension", "dtype", "device", "threads")
"""What the rows of one plot have in common."""
_COLOURS = ("#1f5fa8", "#6aa5dd", "#2e8b57", "#8a6a4f", "#e08a2e", "#b8484e", "#8064a8")
_PLAIN = "#7a7a7a"


def newest(records: list[Record]) -> list[Record]:
    """The last row of each provider and size, in the order of their first appearance."""
    kept: dict[tuple[str, ...], Record] = {}
    for record in records:
        kept[(*(record[name] for name in SAME), record["provider"], record["rows"])] = record
    return list(kept.values())


def measured(records: list[Record]) -> list[Record]:
    """Rows that hold a time."""
    return [record for record in records if record["y50"]]


def draw_all(folder: Path) -> list[Path]:
    """One picture for each kernel, setting, width, dtype, device and number of threads that has two
    sizes or more, beside the CSV.
    """
    plots: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in measured(newest(read_rows(CSV, folder))):
        plots[tuple(record[name] for name in SAME)].append(record)
    found = {key: rows for key, rows in plots.items() if len({row["rows"] for row in rows}) > 1}
    return [draw(rows, folder / f"{file_stem(key)}.svg") for key, rows in found.items()]


def file_stem(key: tuple[str, ...]) -> str:
    """`kernels-ntxent-d128-t1`, and what else is not the usual."""
    kernel, setting, dimension, dtype, device, threads = key
    extra = [
        part
        for part in (
            setting,
            dtype if dtype != "float32" else "",
            device if device != "cpu" else "",
        )
        if part
    ]
    name = "-".join(["kernels", kernel, f"d{dimension}", f"t{threads}", *extra])
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def draw(records: list[Record], path: Path) -> Path:
    """The three panels of one plot, saved as SVG.

    Raises:
        DependencyError: matplotlib is missing.
    """
    from secure_fl.errors import DependencyError

    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        remedy = "pip install 'secure-fl[report]'"
        raise DependencyError(
            "plots need matplotlib", field="report", value=None, remedy=remedy
        ) from None
    figure = Figure(figsize=(11.2, 3.4), layout="constrained")
    seconds, memory, share = figure.subplots(1, 3)
    for number, name in enumerate(dict.fromkeys(record["provider"] for record in records)):
        own = [record for record in records if record["provider"] == name]
        colour = _PLAIN if name == NAIVE else _COLOURS[number % len(_COLOURS)]
        in_order = sorted(own, key=lambda record: int(record["rows"]))
        _draw_provider((seconds, memory, share), in_order, name, colour)
    ticks = [int(record["rows"]) for record in records]
    for axes, label in ((seconds, "seconds"), (memory, "peak extra memory, MiB")):
        _finish(axes, label, ticks)
        if any(len(line.get_xdata()) for line in axes.lines):
            axes.set_yscale("log")
    _finish(share, "share of the floor", ticks)
    share.set_ylim(0, 1)
    figure.suptitle(_title(records[0]), fontsize=9)
    names = seconds.get_legend_handles_labels()
    figure.legend(*names, loc="outside right center", frameon=False, fontsize=7)
    with mpl.rc_context({"svg.hashsalt": "secure_fl", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _title(record: Record) -> str:
    """What all records of a plot have in common."""
    kernel = f"{record['kernel']} {record['setting']}, {record['mode']}".replace(" ,", ",")
    size = f"D = {record['dimension']}, {record['dtype']}, threads: {record['threads']}"
    return f"{kernel}, {size}"


def _draw_provider(
    panels: tuple[Axes, Axes, Axes], rows: list[Record], name: str, colour: str
) -> None:
    seconds, memory, share = panels
    low, middle, high = ([float(row[column]) for row in rows] for column in ("y20", "y50", "y80"))
    x = [int(row["rows"]) for row in rows]
    seconds.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    seconds.plot(x, middle, marker="o", markersize=3, color=colour, label=name)
    for axes, column in ((memory, "peak_mib"), (share, "floor_share")):
        known = [row for row in rows if row[column] and float(row[column]) > 0]
        x, y = [int(row["rows"]) for row in known], [float(row[column]) for row in known]
        axes.plot(x, y, marker="o", markersize=3, color=colour)


def _finish(axes: Axes, label: str, rows: list[int]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    ticks = sorted(set(rows))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("rows", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
