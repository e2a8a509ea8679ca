"""`secure-fl compare`: runs side by side, for a pilot's decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError

if TYPE_CHECKING:
    from secure_fl.report.comparison import Comparison


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Finished run folders, two at least.")],
    target: Annotated[
        float | None,
        typer.Option(help="Accuracy to reach; what the least accurate ends with when not given."),
    ] = None,
    path: Annotated[Path | None, typer.Option("--out", help="Write a page as well.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    """Hold runs side by side: accuracy, rounds and bytes to a target, stability of pools, ε, time.

    Answers, where two runs differ in what is asked: is pre-training worth its rounds and bytes, are
    pools worth it against one model, what does privacy cost. Says which runs are not comparable:
    other data, other clients, another seed.
    """
    from secure_fl.records import document
    from secure_fl.report.compare_page import write_comparison
    from secure_fl.report.comparison import compare as compared
    from secure_fl.report.runs import read_runs

    if target is not None and not 0 < target <= 1:
        remedy = "an accuracy above 0, up to 1"
        raise ConfigError("is no accuracy", field="--target", value=target, remedy=remedy)
    runs = read_runs(folders)
    if len(runs) < 2:
        remedy = "name two runs at least; `secure-fl report` shows one"
        raise ConfigError("is one run", "DIR", [str(each) for each in folders], remedy)
    found = compared(runs, target)
    if as_json:
        out.print(json.dumps(document(found)), soft_wrap=True)
    else:
        _print(found)
    if path is not None:
        write_comparison(runs, path, target)
        err.print(f"wrote {path}")


def _print(found: Comparison) -> None:
    from secure_fl.report.compare_page import side_table

    shown = side_table(found)
    titles = [column.title for column in shown.columns]
    out.print(Sheet(shown.caption, titles, [[cell.text for cell in row] for row in shown.rows]))
    for answer in found.answers:
        out.print(f"\n{answer.question} {answer.answer}")
        for line in answer.lines:
            out.print(f"  {line}")
    for line in found.apart:
        err.print(line, style="red")
