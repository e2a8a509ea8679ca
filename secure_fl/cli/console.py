"""Printing: one console for results, one for errors; Rich honours NO_COLOR."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_PAGE = 160
"""Columns when the output is no terminal, so that logs keep their tables whole."""

out = Console(
    highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PAGE
)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Sheet:
    """A table, text left and numbers right; where it is too narrow, a sentence for each row."""

    def __init__(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> None:
        self._title, self._columns = title, list(columns)
        self._rows = [[_cell(value) for value in row] for row in rows]
        self._right = [
            all(isinstance(row[place], int | float) or row[place] in ("", "-") for row in rows)
            for place in range(len(self._columns))
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        made = self._table()
        wanted = Measurement.get(console, options.update(max_width=10_000), made).maximum
        if wanted <= options.max_width:
            yield made
            return
        if self._title:
            yield Text(self._title, style="italic")
        for row in self._rows:
            named = zip(self._columns, row, strict=True)
            first, *rest = (f"{name} {cell}".strip() for name, cell in named if cell)
            yield Text(first, style="bold")
            yield Text("  " + ", ".join(rest))

    def _table(self) -> Table:
        made = Table(
            title=self._title or None, title_justify="left", box=None, padding=(0, 2, 0, 0)
        )
        for name, right in zip(self._columns, self._right, strict=True):
            made.add_column(
                name, justify="right" if right else "left", no_wrap=True, overflow="ignore"
            )
        for row in self._rows:
            made.add_row(*map(Text, row))
        return made


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
