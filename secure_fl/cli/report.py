"""`secure-fl report`: what came out, as a page; and one run's privacy card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import out
from secure_fl.errors import ConfigError

_OUT = "File to write; report.html in the first run's folder when not given."


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="One or more finished run folders; several are compared.")
    ],
    path: Annotated[Path | None, typer.Option("--out", help=_OUT)] = None,
    to: Annotated[
        Path | None, typer.Option("--to", hidden=True, help="The former name of --out.")
    ] = None,
) -> None:
    """Write one HTML page: four answers, then each run's pools, clients, protection, audit, cost.

    Of one run its card too, beside the page: privacy-card.json, for programs, and
    privacy-card.html, two sheets of paper at most.
    """
    from secure_fl.federation.run_folder.tags import REPORT
    from secure_fl.report.card import write_card
    from secure_fl.report.page import write_report

    if path is not None and to is not None:
        problem = "is named twice"
        remedy = "leave out --to, its former name"
        raise ConfigError(problem, field="--out", value=[str(path), str(to)], remedy=remedy)
    written = path or to or folders[0] / REPORT
    write_report(folders, written)
    out.print(f"wrote {written}")
    if len(folders) == 1:
        for card in write_card(folders[0], written.parent):
            out.print(f"wrote {card}")
