"""Tables of private encoders, from the CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev

from bench.harness import RESULTS, read_rows
from bench.pages import sheet, whereabouts
from bench.private_encoders_cells import (
    BYTES_CSV,
    CSV,
    ENCODERS,
    FEDERATION,
    FISHER_PRIOR,
    FREE,
    FRESH,
    IMAGES,
    OTHERS,
    PUBLIC,
    RANDOM,
    SETS_SHOWN,
    UPRIGHT_VIEWS,
)

Record = dict[str, str]
_JUDGES = ("probe", "knn", "p5", "k5")
_PLACES = {
    "sum": "in the sum",
    "client": "at each client",
    "curator": "at a trusted curator",
    "": "",
}
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""97.5 % points of Student's t by the number of seeds."""


def records(folder: Path = RESULTS) -> list[Record]:
    """Rows measured so far, each with the bytes that a client sends where these are known."""
    names = ("data", "encoder", "epsilon")
    up = {tuple(row[n] for n in names): row["bytes_up"] for row in read_rows(BYTES_CSV, folder)}

    def of(row: Record) -> str:
        encoder = FISHER_PRIOR if row["encoder"] == FEDERATION else row["encoder"]
        curator = row["placed"] == "curator"
        by_itself = row["placed"] == "client" and encoder == FISHER_PRIOR
        known = up.get((row["data"], encoder, row["epsilon"]), "")
        return "" if curator or by_itself else known

    return [row | {"bytes_up": of(row)} for row in read_rows(CSV, folder)]


def encoders(data: str, rows: Sequence[Record]) -> str:
    """A row an encoder, budget and place of the noise: means over seeds, 95 % intervals of them."""
    head = ["encoder", "noise", "ε", "probe", "kNN", "p5", "k5", "MB up", "seconds", "seeds"]
    lines = list[list[str]]()
    mine = [row for row in rows if row["data"] == data and int(row["seed"]) not in FRESH]
    for name, placed, epsilon in sorted(dict.fromkeys(map(_way, mine)), key=_order):
        same = [row for row in mine if _way(row) == (name, placed, epsilon)]
        noise = "none" if epsilon == "inf" else _PLACES[placed]
        shown = "∞" if epsilon == "inf" else epsilon
        free = name in FREE
        scores = [interval([float(row[judge]) for row in same]) for judge in _JUDGES]
        up = same[0]["bytes_up"]
        sent = f"{int(up) / 1e6:.2f}" if up else ""
        seconds = f"{median(map(_seconds, same)):.0f}"
        way = [name, "" if free else noise, "" if free else shown]
        lines.append([*way, *scores, sent, seconds, str(len(same))])
    return sheet(head, lines)


def _order(way: tuple[str, str, str]) -> tuple[int, int, float]:
    """By encoder, by who adds the noise, by falling budget."""
    name, placed, epsilon = way
    return ENCODERS.index(name), [*_PLACES].index(placed), -float(epsilon)


def _seconds(row: Record) -> float:
    return float(row["head_seconds"]) + float(row["sum_seconds"] or 0)


def fresh(rows: Sequence[Record]) -> str:
    """p5 on the splits that settings were chosen in sight of, on others, and on all."""
    head = ["encoder", "ε", "p5, seeds 0 to 4", "p5, seeds 5 to 9", "all ten", "lowest of ten"]
    lines = list[list[str]]()
    mine = [row for row in rows if row["data"] == IMAGES[0]]
    new = [row for row in mine if int(row["seed"]) in FRESH]
    for way in sorted(dict.fromkeys(map(_way, new)), key=_order):
        same = {int(row["seed"]): float(row["p5"]) for row in mine if _way(row) == way}
        parts = [
            [p5 for seed, p5 in same.items() if (seed in FRESH) == is_new] for is_new in (0, 1)
        ]
        figures = [interval(part) for part in (*parts, [*same.values()])]
        shown = "" if way[0] in FREE else way[2]
        lines.append([way[0], shown, *figures, f"{min(same.values()):.3f}"])
    return sheet(head, lines)


def added(rows: Sequence[Record]) -> str:
    """Points of p5 between encoders on the same split, over seeds."""
    head = ["data", "from", "to", "ε = ∞", "ε = 8", "ε = 2", "ε = 1"]
    lines = list[list[str]]()
    for data in SETS_SHOWN:
        for base in (PUBLIC, RANDOM):
            gains = [
                _gain(rows, data, (base, "", "inf"), (FISHER_PRIOR, "sum", epsilon))
                for epsilon in ("inf", "8", "2", "1")
            ]
            lines.append([data, base, FISHER_PRIOR, *gains])
    return sheet(head, lines)


def where(rows: Sequence[Record]) -> str:
    """Seconds, and where and when it was measured."""
    lines = []
    for data in SETS_SHOWN:
        made = [row for row in rows if row["data"] == data and row["sum_seconds"]]
        if made:
            seconds = median({row["seed"]: float(row["sum_seconds"]) for row in made}.values())
            lines.append(
                f"- {data}: views, features and both sums took {seconds:.0f} processor seconds "
                "(median over seeds) on one core that was not idle."
            )
    return "\n".join([*lines, *whereabouts(rows)])


def interval(values: Sequence[float], form: str = ".3f") -> str:
    """Mean and half the width of its 95 % interval."""
    shown = f"{fmean(values):{form}}"
    if len(values) < 2:
        return shown
    return (
        f"{shown} ± {_STUDENT[len(values)] * stdev(values) / sqrt(len(values)):{form.lstrip('+')}}"
    )


def _way(row: Record) -> tuple[str, str, str]:
    return row["encoder"], row["placed"], row["epsilon"]


def _gain(
    rows: Sequence[Record], data: str, base: tuple[str, str, str], to: tuple[str, str, str]
) -> str:
    def of(way: tuple[str, str, str]) -> dict[str, float]:
        return {r["seed"]: float(r["p5"]) for r in rows if r["data"] == data and _way(r) == way}

    first, second = of(base), of(to)
    shared = sorted(set(first) & set(second))
    return interval([100 * (second[s] - first[s]) for s in shared], "+.1f") if shared else ""


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    **{f"encoders:{data}": partial(encoders, data) for data in IMAGES},
    **{f"encoders:{data.split()[0]}": partial(encoders, data) for data in OTHERS},
    "encoders:upright-views": partial(encoders, UPRIGHT_VIEWS),
    "encoders:fresh": fresh,
    "encoders:added": added,
    "encoders:where": where,
}
