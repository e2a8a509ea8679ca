"""`secure-fl report`: what came out, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import out


def report(
    folders: Annotated[list[Path], typer.Argument(help="One or more finished run folders; several are compared.")],
    to: Annotated[Path | None, typer.Option("--to", help="File to write; report.html in the first run's folder when not given.")] = None,
) -> None:
    """Write one self-contained HTML page with tables and plots."""
    from secure_fl.report.page import write_report

    path = to if to is not None else folders[0] / "report.html"
    write_report(folders, path)
    out.print(f"wrote {path}", markup=False)
