"""Tables as data, which the page draws as rows where it is narrow; and short texts for numbers that
may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

NONE = "–"

Mark = Literal["", "bad", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        items: shown as a list below the text.
        sort: what a table is sorted by; the text where it is None.
        mark: `bad` for what is not protected, `quiet` for small print.
        pool: whose colour stands before the text.
    """

    text: str
    items: tuple[str, ...] = ()
    sort: float | None = None
    mark: Mark = ""
    pool: int | None = None


@dataclass(frozen=True)
class Column:
    """A column's title; `words` is for text, the others are for numbers."""

    title: str
    words: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption. The first column names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False


def table(
    caption: str, titles: str, rows: Iterable[Sequence[Cell | str]], *, sortable: bool = False
) -> Table:
    """A table; its titles are given as `/run/ | time`, those in slashes head columns of words."""
    each = titles.split(" | ")
    columns = tuple(Column(title.strip("/"), title.startswith("/")) for title in each)
    cells = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    if any(len(row) != len(columns) for row in cells):
        raise ValueError("a row has as many cells as there are columns")
    return Table(caption, columns, cells, sortable)


def number(value: float | None, digits: int = 3) -> Cell:
    """A measured number, or a dash."""
    return Cell(NONE, sort=-1) if value is None else Cell(f"{value:.{digits}f}", sort=value)


def count(value: int | None) -> Cell:
    """A whole number, or a dash."""
    return Cell(NONE, sort=-1) if value is None else Cell(str(int(value)), sort=value)


def epsilon(value: float | None) -> str:
    """An ε, never rounded down: an ε that is shown is one that holds."""
    if value is None:
        return "no bound"
    digits = 2 if value >= 0.1 else 4
    return f"{ceil(value * 10**digits - 1e-6) / 10**digits:.{digits}f}"


def confidence(value: float) -> str:
    """How sure a bound is, never rounded up: what is not certain is not shown as 100 %."""
    if not 0 < value < 1:
        return f"{value:.0%}"
    digits = max(0, ceil(-log10(1 - value)) - 1)
    return f"{floor(value * 100 * 10**digits + 1e-6) / 10**digits:.10g}%"


def spans(rounds: Iterable[int]) -> str:
    """Rounds in words: `round 3`, `rounds 1–3, 7`."""
    found: list[list[int]] = []
    for each in sorted(set(rounds)):
        if found and each == found[-1][1] + 1:
            found[-1][1] = each
        else:
            found.append([each, each])
    parts = [str(first) if first == last else f"{first}–{last}" for first, last in found]
    one = len(found) == 1 and found[0][0] == found[0][1]
    return f"{'round' if one else 'rounds'} {', '.join(parts)}"


def some(names: Sequence[str], most: int = 8) -> str:
    """Names in one line; of many, the first and how many more."""
    more, between = len(names) - most, "; " if any("," in name for name in names) else ", "
    return between.join(names) if more <= 0 else f"{between.join(names[:most])} and {more} more"


def share(value: float | None) -> str:
    """An accuracy."""
    return NONE if value is None else f"{value:.3f}"


def clauses(text: str) -> tuple[str, ...]:
    """The parts of a sentence that semicolons join, outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == ";" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts if part.strip())
