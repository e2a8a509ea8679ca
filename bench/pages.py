"""Pages in `docs/` whose tables come from measurements: whatever stands between a
`<!-- table: NAME -->` and `<!-- end -->` is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

_MARKED = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: Path, table: Callable[[str], str]) -> Path:
    """Put `table(NAME)`, Markdown, into every marked place."""
    text = page.read_text(encoding="utf-8")
    page.write_text(
        _MARKED.sub(
            lambda found: f"<!-- table: {found[1]} -->\n{table(found[1])}\n<!-- end -->", text
        ),
        encoding="utf-8",
    )
    return page


def line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def sheet(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join(map(line, [head, ["---"] * len(head), *rows]))


def whereabouts(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """A line for each day, machine, set of versions and commit that rows were measured with."""
    found = (
        f"- {row['date']}, {row['machine']}; {row['versions']}; commit {row['commit']}."
        for row in rows
    )
    return list(dict.fromkeys(found))


def spread(values: Sequence[float]) -> str:
    """`mean ± deviation` over seeds; the value alone where there is one."""
    beside = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{beside}"
