"""Writes the tables of `docs/private-accuracy.md` from the CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from statistics import fmean, median, stdev

from bench.federated_objectives_page import table as skews
from bench.harness import RESULTS, ROOT, read_rows
from bench.pages import fill, line, whereabouts
from bench.private_accuracy_cells import (
    ALIGN,
    BATCH,
    CSV,
    DATA,
    FEDERATED,
    FEDERATED_LEVELS,
    FEDERATIONS,
    LEVELS,
    LOGIT,
    METHODS,
    RANDOM,
    STEPS,
    TUNING_SEED,
    VARIANTS,
    Cell,
    Variant,
)
from bench.private_encoders_page import TABLES as ENCODERS
from bench.private_encoders_page import records
from bench.private_pools_page import CSV as POOLS_CSV
from bench.private_pools_page import TABLES as POOLS

PAGE = ROOT / "docs" / "private-accuracy.md"
_SHOWN = {
    "ordinary": "ordinary training",
    "no clipping": "ε = ∞: sampled, its form of the loss",
    "no noise": "ε = ∞: and clipped",
    "8": "ε = 8",
    "2": "ε = 2",
}

Record = dict[str, str]


def write_page(folder: Path = RESULTS, page: Path = PAGE) -> Path:
    """Fill every marked place of the page from the CSVs in `folder`.

    Raises:
        KeyError: a place names no table.
    """
    rows, encoders = read_rows(CSV, folder), records(folder)
    made = {name: partial(table, rows) for name, table in TABLES.items()}
    made |= {name: partial(table, encoders) for name, table in ENCODERS.items()}
    made["skews"] = partial(skews, folder)
    pools = read_rows(POOLS_CSV, folder)
    made |= {name: partial(table, pools) for name, table in POOLS.items()}
    return fill(page, lambda name: made[name]())


def accuracy(data: str) -> Callable[[Sequence[Record]], str]:
    """A row a method, a column a level: mean and deviation over seeds of the probe, mean of kNN."""

    def table(rows: Sequence[Record]) -> str:
        floor = _score(_usual(rows, data, RANDOM, ""))
        lines = [
            line(["trained by", *_SHOWN.values()]),
            line(["---"] * 6),
            line([f"nothing: {RANDOM}", floor, *[""] * 4]),
        ]
        for method, known in METHODS.items():
            if known.shown == "table":
                lines.append(
                    line([method, *(_score(_usual(rows, data, method, level)) for level in LEVELS)])
                )
        return "\n".join(lines)

    return table


def losses(rows: Sequence[Record]) -> str:
    """Points of probe accuracy from step to step of the way from ordinary training to ε = 2, and
    what gradients look like on it.
    """
    head = [
        "data",
        "trained by",
        "sampling and form of the loss",
        "clipping",
        "noise of ε = 8",
        "noise of ε = 2",
        "left above random at ε = 2",
    ]
    lines = [
        line([*head, "median norm over C", "clipped", "signal : noise, ε = 8", "ε = 2"]),
        line(["---"] * (len(head) + 4)),
    ]
    for data in DATA:
        floor = _mean(_usual(rows, data, RANDOM, ""), "probe")
        for method in METHODS:
            found = {level: _usual(rows, data, method, level) for level in LEVELS}
            if all(found.values()) and floor is not None:
                lines.append(line([data, method, *_lost(found, floor, METHODS[method].clip)]))
    return "\n".join(lines)


def _lost(found: dict[str, list[Record]], floor: float, clip: float) -> list[str]:
    """Points of accuracy lost at each step, and what gradients look like, of one method."""
    plain, form, clipped, eight, two = (_mean(found[level], "probe") or 0.0 for level in LEVELS)
    changes = (form - plain, clipped - form, eight - clipped, two - clipped, two - floor)
    return [
        *(f"{100 * change:+.1f}" for change in changes),
        _ends(found["no noise"], "norm", ".1f", clip),
        _ends(found["no noise"], "clipped", ".0%"),
        *(_ends(found[level], "signal", ".2f") for level in ("8", "2")),
    ]


def clients(rows: Sequence[Record]) -> str:
    """Client level: accuracy, and what a round's mean update meets."""
    head = ["data", "trained by", "rounds", *(_SHOWN[level] for level in FEDERATED_LEVELS)]
    head += [
        "median norm over C",
        "clipped",
        "z at ε = 8",
        "ε = 2",
        "noise a coordinate over C, ε = 8",
        "ε = 2",
        "signal : noise, ε = 8",
        "ε = 2",
    ]
    lines = [line(head), line(["---"] * len(head))]
    for data, method in FEDERATIONS:
        known = FEDERATED[method]
        found = {level: _usual(rows, data, method, level) for level in FEDERATED_LEVELS}
        cells = [data, method, str(known.rounds), *(_score(each) for each in found.values())]
        cells += [
            _ends(found["no noise"], "norm", ".1f", known.clips[0]),
            _ends(found["no noise"], "clipped", ".0%"),
        ]
        noises = [_mean(found[level], "noise") for level in ("8", "2")]
        honest = ceil(0.75 * known.clients) - 1
        cells += ["" if z is None else f"{z:.2f}" for z in noises]
        cells += [
            "" if z is None else f"{z * sqrt(known.clients / honest) / known.clients:.4f}"
            for z in noises
        ]
        lines.append(
            line([*cells, *(_ends(found[level], "signal", ".2f") for level in ("8", "2"))])
        )
    return "\n".join(lines)


def variants(rows: Sequence[Record]) -> str:
    """What else was tried, with the usual setting above it."""
    head = ["data", "trained by", "changed", "examples", "batch", "steps", *_SHOWN.values()]
    lines = [line(head), line(["---"] * len(head))]
    shown = set()
    for variant in VARIANTS:
        usual = ALIGN if METHODS[variant.method].shown == "variant" else variant.method
        if (variant.data, usual) not in shown:
            shown.add((variant.data, usual))
            lines.append(_variant(rows, Variant(variant.data, usual, "nothing", LEVELS, {})))
        lines.append(_variant(rows, variant))
    return "\n".join(lines)


def _variant(rows: Sequence[Record], variant: Variant) -> str:
    cell = variant.cell("2", 0)
    found = [
        _score(_like(rows, variant.cell(level, 0))) if level in variant.levels else ""
        for level in LEVELS
    ]
    return line(
        [
            variant.data,
            variant.method,
            variant.changed,
            f"{cell.examples:,}",
            str(cell.batch),
            str(cell.steps),
            *found,
        ]
    )


def tuning(rows: Sequence[Record]) -> str:
    """What each learning rate, or bound on a client's update, gave on the tuning split."""
    lines = [
        line(["trained by", "level", "C", "learning rate (of clients: C): probe / kNN"]),
        line(["---"] * 4),
    ]
    tried = [row for row in rows if row["seed"] == str(TUNING_SEED)]
    for method, level in [(method, level) for method in METHODS for level in LEVELS]:
        mine = sorted(
            (row for row in tried if (row["method"], row["level"]) == (method, level)),
            key=lambda row: float(row["lr"]),
        )
        if mine:
            shown = " · ".join(
                f"{float(row['lr']):g}: {float(row['probe']):.3f} / {float(row['knn']):.3f}"
                for row in mine
            )
            lines.append(
                line(
                    [method, _SHOWN[level], "–" if level == "ordinary" else mine[0]["clip"], shown]
                )
            )
    for method, level in [(method, level) for method in FEDERATED for level in FEDERATED_LEVELS]:
        mine = sorted(
            (row for row in tried if (row["method"], row["level"]) == (method, level)),
            key=lambda row: float(row["clip"]),
        )
        if mine:
            shown = " · ".join(
                f"{float(row['clip']):g}: {float(row['probe']):.3f} / {float(row['knn']):.3f}"
                for row in mine
            )
            lines.append(line([method, _SHOWN[level], f"tried, at rate {mine[0]['lr']}", shown]))
    return "\n".join(lines)


def where(rows: Sequence[Record]) -> str:
    """Noise multipliers, and where and when it was measured."""
    noises = sorted(
        {
            (row["data"], row["level"], row["noise"])
            for row in rows
            if _is_usual(row) and row["level"] in ("8", "2")
        }
    )
    lines = [
        f"- {data}, ε = {level}: σ = {noise} at q = {BATCH}/{DATA[data][1]:,} and {STEPS} steps."
        for data, level, noise in noises
    ]
    private = [
        row
        for row in rows
        if _is_usual(row) and row["level"] in ("no clipping", "no noise", "8", "2")
    ]
    for what, mine in (
        ("private run", [row for row in private if row["method"] != LOGIT]),
        ("private run by pairs (logit)", [row for row in private if row["method"] == LOGIT]),
        ("federation's run", [row for row in rows if row["method"] in FEDERATED]),
    ):
        if mine:
            low, middle, high = (
                pick([float(row["cpu_seconds"]) for row in mine]) for pick in (min, median, max)
            )
            lines.append(
                f"- A {what} took {low:.0f} to {high:.0f} processor seconds (median {middle:.0f}) "
                "on one core that was not idle."
            )
    return "\n".join([*lines, *whereabouts(rows)])


def _is_usual(row: Record) -> bool:
    if row["method"] in FEDERATED:
        return False
    return row["seed"] != str(TUNING_SEED) and Cell.of(
        row["data"], row["method"], row["level"], int(row["seed"])
    ).key == tuple(row[n] for n in _KEY)


_KEY = ("data", "method", "level", "seed", "examples", "batch", "steps", "lr", "clip")


def _usual(rows: Iterable[Record], data: str, method: str, level: str) -> list[Record]:
    return _like(rows, Cell.of(data, method, level, 0))


def _like(rows: Iterable[Record], cell: Cell) -> list[Record]:
    """Rows of this cell at any reported seed."""
    wanted = [value for name, value in zip(_KEY, cell.key, strict=True) if name != "seed"]
    return [
        row
        for row in rows
        if row["seed"] != str(TUNING_SEED)
        and [row[name] for name in _KEY if name != "seed"] == wanted
    ]


def _score(rows: Sequence[Record]) -> str:
    """`probe ± deviation / kNN`, and over how many seeds if fewer than three."""
    if not rows:
        return ""
    probes = [float(row["probe"]) for row in rows]
    spread = f" ± {stdev(probes):.3f}" if len(probes) > 1 else ""
    own = _mean(rows, "own")
    few = f" ({len(probes)} seed{'s' * (len(probes) > 1)})" if len(probes) < 3 else ""
    return (
        f"{fmean(probes):.3f}{spread} / {_mean(rows, 'knn'):.3f}"
        + (f" / {own:.3f}" if own is not None else "")
        + few
    )


def _mean(rows: Sequence[Record], column: str) -> float | None:
    values = [float(row[column]) for row in rows if row[column]]
    return fmean(values) if values else None


def _ends(rows: Sequence[Record], column: str, form: str, unit: float = 1.0) -> str:
    """Before training and after it."""
    first, last = (_mean(rows, f"{column}_{end}") for end in ("first", "last"))
    return "" if first is None or last is None else f"{first / unit:{form}} → {last / unit:{form}}"


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    **{data: accuracy(data) for data in DATA},
    "losses": losses,
    "clients": clients,
    "variants": variants,
    "tuning": tuning,
    "where": where,
}
