"""Writes the tables of `docs/kernel-speed.md` from the CSVs."""

from __future__ import annotations

import os
from pathlib import Path

from bench.harness import ROOT, read_rows
from bench.kernels import bar
from bench.kernels.plots import SAME, Record, file_stem, measured, newest
from bench.kernels.registry import NAMES, kernel
from bench.kernels.run import CSV
from bench.pages import fill, line

PAGE = ROOT / "docs" / "kernel-speed.md"


def write_page(folder: Path, page: Path = PAGE) -> Path:
    """Fill every marked place of the page from the CSVs in `folder`.

    Raises:
        KeyError: a place names no table.
    """
    return fill(page, lambda name: table(name, folder))


def table(name: str, folder: Path) -> str:
    """The Markdown of one table: `bar`, `provenance`, or a kernel's."""
    if name == "bar":
        return _bars(read_rows(bar.CSV, folder))
    if name == "provenance":
        return _provenance(read_rows(CSV, folder) + read_rows(bar.CSV, folder))
    if name not in NAMES:
        raise KeyError(f"no table {name!r}: bar, provenance, {', '.join(NAMES)}")
    records = [record for record in newest(read_rows(CSV, folder)) if record["kernel"] == name]
    return "\n\n".join(
        part
        for part in (
            _title(name),
            _plots(records, folder),
            _kernel(measured(records)),
            _left_out(records),
        )
        if part
    )


def _title(name: str) -> str:
    title = kernel(name).title
    return f"{title[0].upper()}{title[1:]}."


def _plots(records: list[Record], folder: Path) -> str:
    """The pictures that were drawn of these rows."""
    stems = dict.fromkeys(file_stem(tuple(record[column] for column in SAME)) for record in records)
    found = [folder / f"{stem}.svg" for stem in stems if (folder / f"{stem}.svg").exists()]
    return "\n\n".join(
        f"![{path.stem}]({Path(os.path.relpath(path, PAGE.parent)).as_posix()})" for path in found
    )


def _kernel(records: list[Record]) -> str:
    if not records:
        return "Not measured yet."
    settings = any(record["setting"] for record in records)
    head = [
        "rows",
        "D",
        "threads",
        *(["setting"] if settings else []),
        "provider",
        "seconds (0.2 to 0.8)",
    ]
    head += ["times naive", "MiB", "error of value", "of gradient", "share of floor", "what limits"]
    lines = [line(head), line(["---"] * len(head))]
    for record in sorted(records, key=_order):
        cells = [
            record["rows"],
            record["dimension"],
            record["threads"],
            *([record["setting"]] if settings else []),
            record["provider"],
        ]
        cells += [f"{record['y50']} ({record['y20']} to {record['y80']})"]
        cells += [
            record[column] or "–"
            for column in (
                "times_naive",
                "peak_mib",
                "value_error",
                "gradient_error",
                "floor_share",
                "limits",
            )
        ]
        lines.append(line(cells))
    return "\n".join(lines)


def _order(record: Record) -> tuple[int, int, int]:
    """By width, threads and rows; settings and providers stay in the order of the file."""
    return int(record["dimension"]), int(record["threads"]), int(record["rows"])


def _left_out(records: list[Record]) -> str:
    """Who was left out where, and why."""
    where: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record["skipped"]:
            sizes = where.setdefault((record["provider"], record["skipped"]), [])
            sizes += [record["rows"]] if record["rows"] not in sizes else []
    return "\n".join(
        f"- Left out at {', '.join(sizes)} rows: {provider}; {reason}."
        for (provider, reason), sizes in where.items()
    )


def _bars(records: list[Record]) -> str:
    if not records:
        return "Not measured yet."
    kept = {
        (record["bar"], record["rows"], record["dimension"], record["threads"]): record
        for record in records
    }
    lines = [
        line(["target", "rows", "D", "threads", "found (0.2 to 0.8)", "wanted", "", "note"]),
        line(["---"] * 8),
    ]
    for record in kept.values():
        spread = f" ({record['y20']} to {record['y80']})" if record["y20"] else ""
        found = f"{record['figure']}{spread}" if record["figure"] else "–"
        wanted = record["target"].replace(">=", "≥").replace("<=", "≤") or "–"
        size = [record["rows"], record["dimension"], record["threads"]]
        lines.append(line([record["bar"], *size, found, wanted, record["verdict"], record["note"]]))
    return "\n".join(lines)


def _provenance(records: list[Record]) -> str:
    places = dict.fromkeys(
        (record["date"], record["machine"], record["versions"], record["commit"])
        for record in records
    )
    return (
        "\n".join(
            f"- {date}, commit `{commit}`: {machine}; {versions}"
            for date, machine, versions, commit in places
        )
        or "Nothing yet."
    )
