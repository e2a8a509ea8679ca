"""The command line: which kernels, which sizes, where the rows go."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.harness import RESULTS
from bench.kernels.agenda import Cell, walk
from bench.kernels.case import Case, Kernel
from bench.kernels.registry import NAMES, kernel
from bench.kernels.run import Options

_WHAT = (*NAMES, "all", "bar", "plot", "page")
_FULL_LIMIT = 120.0
_FULL_BUDGET = 300.0


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(
        prog="python -m bench.kernels",
        description="Measure the kernels against plain torch and other people's programs.",
    )
    made.add_argument(
        "what",
        nargs="*",
        help=f"any of: {', '.join(_WHAT)}",
        metavar="WHAT",
    )
    made.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="set two CSVs side by side instead of measuring; ends with 1 at a regression",
    )
    made.add_argument("--rows", type=int, nargs="+", help="sizes; of bar the first (default 8192)")
    made.add_argument(
        "--dimension", type=int, nargs="+", help="widths; of bar the first (default 128)"
    )
    made.add_argument("--threads", type=int, nargs="+", help="threads (default 1; of bar 1 and 2)")
    made.add_argument(
        "--dtype",
        nargs="+",
        default=["float32"],
        choices=["float32", "float64", "bfloat16", "float16"],
    )
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    _add_limits(made)
    _add_outputs(made)
    return made


def _add_limits(made: argparse.ArgumentParser) -> None:
    """How long to measure."""
    made.add_argument("--full", action="store_true", help="all sizes, longer limits: hours")
    made.add_argument(
        "--rounds",
        type=int,
        default=Options.rounds,
        help=f"samples of each provider (default {Options.rounds})",
    )
    made.add_argument(
        "--seconds",
        type=float,
        help=f"seconds of timing a size, at least three rounds (default {Options.budget:g})",
    )
    made.add_argument("--budget", type=float, help="minutes that all sizes together may take")
    made.add_argument(
        "--limit",
        type=float,
        help="leave out a provider whose call takes longer, in seconds (default "
        f"{Options.limit:g})",
    )


def _add_outputs(made: argparse.ArgumentParser) -> None:
    """What to measure beside time, and where the rows go."""
    made.add_argument(
        "--no-memory", dest="memory", action="store_false", help="do not measure memory"
    )
    made.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of kernels.csv, bar.csv and the plots"
    )
    made.add_argument("--plot", action="store_true", help="draw the plots afterwards")
    made.add_argument("--strict", action="store_true", help="bar: end with 1 when one is not met")


def cases_of(chosen: Kernel, options: argparse.Namespace) -> list[Case]:
    """Every size, width, number of threads and dtype asked for."""
    rows = options.rows or (chosen.full_rows if options.full else chosen.rows)
    dimensions = options.dimension or (
        chosen.full_dimensions if options.full else chosen.dimensions
    )
    return [
        Case(n, d, t, dtype, options.device)
        for n in rows
        for d in dimensions
        for t in options.threads or [1]
        for dtype in options.dtype
    ]


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for, in order."""
    made = parser()
    options = made.parse_args(arguments)
    if options.compare:
        raise SystemExit(_compare(*options.compare))
    if not options.what or not set(options.what) <= set(_WHAT):
        made.error(f"say what to measure, of {', '.join(_WHAT)}")
    settings = Options(
        options.rounds,
        options.seconds or (_FULL_BUDGET if options.full else Options.budget),
        options.limit or (_FULL_LIMIT if options.full else Options.limit),
        options.memory,
    )
    names = [name for what in options.what for name in (NAMES if what == "all" else [what])]
    kernels = [kernel(name) for name in dict.fromkeys(names) if name in NAMES]
    cells = [Cell(chosen, case) for chosen in kernels for case in cases_of(chosen, options)]
    if cells:
        walk(cells, settings, options.out, say, options.budget)
    failed = "bar" in names and _bar(options, settings)
    if options.plot or "plot" in names:
        from bench.kernels.plots import draw_all

        for path in draw_all(options.out):
            say(f"wrote {path}")
    if "page" in names:
        from bench.kernels.html import write_html
        from bench.kernels.page import write_page

        say(f"wrote {write_html(options.out)}")
        say(f"wrote {write_page(options.out)}")
    if failed and options.strict:
        raise SystemExit(1)


def _compare(before: Path, after: Path) -> int:
    """Tell of two files; the exit code."""
    from bench.kernels.compare import compare, lines

    try:
        found = compare(before, after)
    except (FileNotFoundError, ValueError) as error:
        say(str(error))
        return 2
    for line in lines(found):
        say(line)
    return int(found.regressed)


def _bar(options: argparse.Namespace, settings: Options) -> bool:
    """Measure the bar; whether something is not met."""
    from bench.kernels.bar import measure_bar

    case = Case((options.rows or [8192])[0], (options.dimension or [128])[0])
    bars = measure_bar(
        case,
        tuple(options.threads or (1, 2)),
        replace(settings, budget=options.seconds or _FULL_BUDGET),
        options.out,
        say,
    )
    return any(bar.met is False for bar in bars)


def say(text: str) -> None:
    """Print at once: the output is the progress."""
    print(text, flush=True)
