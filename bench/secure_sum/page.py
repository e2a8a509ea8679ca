"""Writes the tables of `docs/secure-sum-speed.md` from the CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.harness import ROOT, read_rows
from bench.pages import fill, sheet

CSV, COUNTS_CSV = "secure_sum.csv", "secure_sum_counts.csv"
PAGE = ROOT / "docs" / "secure-sum-speed.md"
Record = dict[str, str]


def write_page(folder: Path, page: Path = PAGE) -> Path:
    """Fill every marked place of the page from the CSV in `folder`.

    Raises:
        KeyError: a place names no table.
    """
    records, counts = newest(read_rows(CSV, folder)), read_rows(COUNTS_CSV, folder)
    return fill(page, lambda name: _counts(counts) if name == "counts" else TABLES[name](records))


def newest(records: list[Record]) -> list[Record]:
    """The last row of every figure and size."""
    return list(
        {
            (record["P"], record["K"], record["system"], record["figure"]): record
            for record in records
        }.values()
    )


def _bar(records: list[Record]) -> str:
    head = ["P", "K", "system", "figure", "found (0.2 to 0.8)", "at most", "", "note"]
    rows = [
        [*_size(r), r["system"], r["figure"], _found(r), r["target"], r["verdict"], r["note"]]
        for r in records
        if r["target"]
    ]
    return _table(head, rows)


def _others(records: list[Record]) -> str:
    head = ["P", "K", "system", "figure", "found (0.2 to 0.8)", "note"]
    return _table(
        head,
        [
            [*_size(r), r["system"], r["figure"], _found(r), r["note"]]
            for r in records
            if not r["target"]
        ],
    )


def _provenance(records: list[Record]) -> str:
    places = dict.fromkeys(
        (r["date"], r["commit"], r["machine"], r["versions"], r["repeats"], r["load"])
        for r in records
    )
    text = "- {}, commit `{}`: {}; {}; {} repeats, load {} at the start"
    return "\n".join(text.format(*place) for place in places) or "Nothing yet."


def _counts(records: list[Record]) -> str:
    last = {(record["clients"], record["system"]): record for record in records}
    columns = [
        "clients",
        "system",
        "neighbours",
        "proof, B to each",
        "proof, ms to check",
        "share of a round's bytes",
        "round, s",
        "verdict",
    ]
    places = dict.fromkeys(
        f"{record['date']}, commit `{record['commit']}`, {record['machine']}"
        for record in last.values()
    )
    return (
        _table(columns, [[record[column] for column in columns] for record in last.values()])
        + "\n\n"
        + "; ".join(places)
    )


TABLES: dict[str, Callable[[list[Record]], str]] = {
    "bar": _bar,
    "others": _others,
    "provenance": _provenance,
}


def _size(record: Record) -> list[str]:
    return [f"{int(record['P']):,}", record["K"]]


def _found(record: Record) -> str:
    return f"{record['value']} {record['unit']}".strip() + (
        f" ({record['y20']} to {record['y80']})" if record["y20"] else ""
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "Not measured yet."
    return sheet(head, rows)
