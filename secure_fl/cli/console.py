"""Printing: one console for results, one for errors; Rich honours NO_COLOR."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_PAGE = 160
"""Columns when the output is no terminal, so that logs keep their tables whole."""
_NARROWEST = 28
"""Columns that prose is given at the least."""

_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF")


class _Printer(Console):
    """A console whose texts come from files that anybody may have written."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(plain(each) if isinstance(each, str) else each for each in objects), **options
        )


out = _Printer(
    highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PAGE
)
err = _Printer(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Sheet:
    """A table, text left and numbers right. Where it is too wide, columns of prose are wrapped;
    where that is not enough, each row becomes a few lines that name their columns.

    `styles`: one a row, where rows have them.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        styles: Sequence[str] = (),
    ) -> None:
        self._title, self._columns = title, list(columns)
        self._styles = list(styles) or [""] * len(rows)
        self._rows = [[_cell(value) for value in row] for row in rows]
        self._right = [
            all(isinstance(row[place], int | float) or row[place] in ("", "-") for row in rows)
            for place in range(len(self._columns))
        ]
        self._prose = [
            _is_prose([row[place] for row in self._rows]) for place in range(len(self._columns))
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        made = self._table()
        wanted = Measurement.get(console, options.update(max_width=10_000), made)
        if wanted.maximum <= options.max_width:
            yield made
        elif any(self._prose) and self._least(console, options) <= options.max_width:
            yield self._table(wraps=True)
        else:
            yield from self._lines(options.max_width)

    def _least(self, console: Console, options: ConsoleOptions) -> int:
        """Columns of the narrowest table in which prose still reads well."""
        made = self._table(wraps=True)
        return Measurement.get(console, options.update(max_width=10_000), made).minimum

    def _lines(self, width: int) -> RenderResult:
        """Every row as lines: its name, what is short, and prose below."""
        if self._title:
            yield Text(plain(self._title), style="italic")
        for row, style in zip(self._rows, self._styles, strict=True):
            named = zip(self._columns, row, self._prose, strict=True)
            (first, _), *rest = (
                (f"{name} {cell}".strip(), prose) for name, cell, prose in named if cell
            )
            yield Text(first, style=f"bold {style}")
            for line in _packed([told for told, prose in rest if not prose], width - 2):
                yield Text("  " + line, style=style)
            for told in (told for told, prose in rest if prose):
                wrapped = Text(told, style=style, no_wrap=False, overflow="fold")
                yield Padding(wrapped, (0, 0, 0, 2), expand=False)

    def _table(self, *, wraps: bool = False) -> Table:
        made = Table(
            title=plain(self._title) or None, title_justify="left", box=None, padding=(0, 2, 0, 0)
        )
        columns = zip(self._columns, self._right, self._prose, strict=True)
        for name, right, prose in columns:
            made.add_column(
                name,
                justify="right" if right else "left",
                no_wrap=not (wraps and prose),
                min_width=_NARROWEST if wraps and prose else None,
                overflow="fold" if wraps and prose else "ignore",
            )
        for row, style in zip(self._rows, self._styles, strict=True):
            made.add_row(*map(Text, row), style=style)
        return made


def plain(text: str) -> str:
    """Text that a file may have brought along, without what a terminal would obey: control
    characters but ends of lines, and turns of direction.
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if _obeyed(one) else one for one in text)


def _obeyed(character: str) -> bool:
    kind = unicodedata.category(character)
    turns = kind == "Cf" and unicodedata.bidirectional(character) in _TURNS
    return turns or (kind == "Cc" and character not in "\n\t")


def _packed(items: Sequence[str], width: int) -> list[str]:
    """Items in as few lines as hold them, none broken, in their order."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += f", {item}"
        else:
            lines[-1:] = [*(f"{line}," for line in lines[-1:]), item]
    return lines


def _is_prose(cells: Sequence[str]) -> bool:
    """Whether cells are wrapped between words: sentences are; names, paths and digests are not."""
    words = [word for cell in cells for word in cell.split()]
    is_long = max(map(len, cells), default=0) > _NARROWEST
    return is_long and max(map(len, words), default=0) < _NARROWEST


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else plain(str(value))
