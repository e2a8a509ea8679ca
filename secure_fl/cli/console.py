"""Printing: one console for results, one for errors. Rich honours NO_COLOR and drops colour when not on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PAGE = 160
"""Columns when the output is no terminal, so that logs keep their tables whole."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PAGE)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table with text to the left and numbers to the right, wide enough to keep its cells whole."""
    made = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) or row[number] in ("", "-") for row in rows)
        made.add_column(name, justify="right" if numeric else "left", no_wrap=True, overflow="ignore")
    for row in rows:
        made.add_row(*(escape(_cell(value)) for value in row))
    return made


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
