"""Tables of private encoders, from the CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from statistics import fmean, median, stdev

from bench.pages import line
from bench.private_encoders_cells import FISHER_PRIOR, FREE, IMAGES, PUBLIC, RANDOM

Record = dict[str, str]
_JUDGES = ("probe", "knn", "p5", "k5")
_PLACES = {
    "sum": "in the sum",
    "client": "at each client",
    "curator": "at a trusted curator",
    "": "",
}
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""97.5 % points of Student's t by the number of seeds."""


def encoders(data: str, rows: Sequence[Record]) -> str:
    """A row an encoder, budget and place of the noise: means over seeds, 95 % intervals of them."""
    head = ["encoder", "noise", "ε", "probe", "kNN", "p5", "k5", "seeds"]
    lines = [line(head), line(["---"] * len(head))]
    mine = [row for row in rows if row["data"] == data]
    for name, placed, epsilon in dict.fromkeys(map(_way, mine)):
        same = [row for row in mine if _way(row) == (name, placed, epsilon)]
        noise = "none" if epsilon == "inf" else _PLACES[placed]
        shown = "∞" if epsilon == "inf" else epsilon
        free = name in FREE
        scores = [interval([float(row[judge]) for row in same]) for judge in _JUDGES]
        lines.append(
            line([name, "" if free else noise, "" if free else shown, *scores, str(len(same))])
        )
    return "\n".join(lines)


def added(rows: Sequence[Record]) -> str:
    """Points of p5 between encoders on the same split, over seeds."""
    head = ["data", "from", "to", "ε = ∞", "ε = 8", "ε = 2", "ε = 1"]
    lines = [line(head), line(["---"] * len(head))]
    for data in IMAGES:
        for base in (PUBLIC, RANDOM):
            gains = [
                _gain(rows, data, (base, "", "inf"), (FISHER_PRIOR, "sum", epsilon))
                for epsilon in ("inf", "8", "2", "1")
            ]
            lines.append(line([data, base, FISHER_PRIOR, *gains]))
    return "\n".join(lines)


def where(rows: Sequence[Record]) -> str:
    """Seconds, and where and when it was measured."""
    lines = []
    for data in IMAGES:
        made = [row for row in rows if row["data"] == data and row["sum_seconds"]]
        if made:
            seconds = median({row["seed"]: float(row["sum_seconds"]) for row in made}.values())
            lines.append(
                f"- {data}: views, features and both sums took {seconds:.0f} processor seconds "
                "(median over seeds) on one core that was not idle."
            )
    found = (
        f"{row['date']}, {row['machine']}; {row['versions']}; commit {row['commit']}."
        for row in rows
    )
    return "\n".join([*lines, *(f"- {each}" for each in dict.fromkeys(found))])


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
    "encoders:added": added,
    "encoders:where": where,
}
