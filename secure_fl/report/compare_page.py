"""A comparison as a table, and as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secure_fl.files import write_atomically
from secure_fl.quantities import clock, size
from secure_fl.report import plots
from secure_fl.report.comparison import Comparison, Side, compare
from secure_fl.report.page import page_of
from secure_fl.report.runs import Run
from secure_fl.report.tables import NONE, Cell, Mark, Table, epsilon, number, some, table
from secure_fl.report.tiles import Line, Tile

TITLES = (
    "/run/ | accuracy | spread | worst client | /who/ | rounds to target | bytes to target | "
    "/changes of pool/ | last rounds alike | /ε/ | rounds | bytes | time | /audit/"
)
_MOST = 8


def write_comparison(runs: Sequence[Run], path: Path, target: float | None = None) -> None:
    """Write the page.

    Raises:
        RunFolderError: a record is one that this version does not write.
        DependencyError: jinja2 or matplotlib is missing.
    """

    def told() -> dict[str, object]:
        found = compare(runs, target)
        courses = [
            (run.name, run.pools.accuracy_per_round) for run in runs if run.pools is not None
        ]
        known = [each for each in courses if any(value is not None for value in each[1])]
        several = [run for run in runs if run.pools is not None and run.pool_count > 1]
        charts = [plots.accuracy_plot(known)] if known else []
        charts += [
            plots.occupancy_plot(run.pools.occupancy_per_round, run.name)
            for run in several
            if run.pools is not None
        ]
        return {
            "names": [run.name for run in runs],
            "target": found.target,
            "apart": found.apart,
            "tiles": answer_tiles(found),
            "table": side_table(found),
            "charts": charts,
        }

    write_atomically(path, page_of("compare.html.j2", told, [run.folder for run in runs]))


def answer_tiles(found: Comparison) -> list[Tile]:
    """The three questions."""
    return [
        Tile(
            answer.question,
            answer.answer,
            "" if answer.having else "quiet",
            tuple(Line(line) for line in answer.lines),
            "compared",
        )
        for answer in found.answers
    ]


def side_table(found: Comparison) -> Table:
    """A row for each run."""
    target = "" if found.target is None else f"; target: accuracy {found.target:.3f}"
    rows = [_row(side) for side in found.runs]
    return table(f"Runs side by side{target}", TITLES, rows, sortable=True)


def _row(side: Side) -> list[Cell | str]:
    reached, moves = side.reached, side.moves
    known = side.accuracy is not None
    never = Cell("never" if known else NONE, sort=float(1 << 60))
    rounds = never if reached is None else Cell(str(reached.rounds), sort=reached.rounds)
    sent = never if reached is None else Cell(size(reached.bytes), sort=reached.bytes)
    return [
        side.name,
        *map(number, (side.accuracy, side.spread, side.worst)),
        some(side.worst_clients, 3) or NONE,
        rounds,
        sent,
        NONE if moves is None else _moved(moves),
        number(side.settled, 2),
        _epsilon(side),
        Cell(str(side.rounds), sort=side.rounds),
        Cell(size(side.bytes), sort=side.bytes),
        Cell(NONE, sort=-1)
        if side.seconds is None
        else Cell(clock(side.seconds), sort=side.seconds),
        Cell(side.audit or "never audited", mark="bad" if side.alarming else ""),
    ]


def _moved(moves: Sequence[int]) -> str:
    """Changes round by round, of many the last ones."""
    shown = " ".join(map(str, moves[-_MOST:]))
    return f"… {shown}" if len(moves) > _MOST else shown


def _epsilon(side: Side) -> Cell:
    if side.unit == "none":
        return Cell("none", mark="bad")
    mark: Mark = "bad" if side.epsilon is None else ""
    return Cell(f"{epsilon(side.epsilon)} for one {side.unit}", mark=mark)
