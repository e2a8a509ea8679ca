"""Which losses, skews and numbers of clients `federated_objectives` compares, and its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from bench.harness import RESULTS, read_rows
from bench.pages import sheet
from bench.private_encoders_page import interval

CSV = "federated_objectives.csv"
RANDOM, SSD = "random", "ssd"
OBJECTIVES = (SSD, "align_uniform", "masked", "nt_xent")
ALPHAS, CLIENTS = (0.1, 100.0, 1.0), (16, 4)
DATA = ("digits", "MNIST-5k")
MEASURES = ("probe", "knn", "p5", "k5")


@dataclass(frozen=True)
class Cell:
    """One training, or the encoder that all begin with."""

    data: str
    objective: str
    alpha: float
    clients: int
    seed: int


def cells(seeds: int) -> Iterator[Cell]:
    """A set, a number of clients and a seed of all before the next; NT-Xent last of a set."""
    for data in DATA:
        for seed in range(seeds):
            yield Cell(data, RANDOM, ALPHAS[0], CLIENTS[0], seed)
        for some in (OBJECTIVES[:-1], OBJECTIVES[-1:]):
            for clients, seed, alpha, objective in product(CLIENTS, range(seeds), ALPHAS, some):
                yield Cell(data, objective, alpha, clients, seed)


def table(folder: Path = RESULTS) -> str:
    """Every loss, and by how much SSD is above each on the same split, in points of p5."""
    rows, lines = read_rows(CSV, folder), list[list[str]]()
    for data in dict.fromkeys(row["data"] for row in rows):
        floor = [row for row in rows if (row["data"], row["objective"]) == (data, RANDOM)]
        lines.append([data, "", "", RANDOM, *_scores(floor), "", str(len(floor))])
        for clients, alpha in product(CLIENTS, sorted(ALPHAS)):
            at = (data, str(alpha), str(clients))
            mine = [row for row in rows if (row["data"], row["alpha"], row["clients"]) == at]
            lines += _compared([data, str(clients), f"{alpha:g}"], mine)
        lines += _over_all(data, [row for row in rows if row["data"] == data])
    head = ["data", "clients", "Dirichlet α", "loss", *MEASURES]
    head += ["SSD above it, points of p5", "seeds"]
    return sheet(head, lines)


def _compared(at: list[str], rows: Sequence[dict[str, str]]) -> Iterator[list[str]]:
    """Lines of the losses that were measured at one skew and number of clients."""
    for objective in OBJECTIVES:
        own = [row for row in rows if row["objective"] == objective]
        if own:
            above = "" if objective == SSD else _above(rows, objective)
            yield [*at, objective, *_scores(own), above, str(len(own))]


def _over_all(data: str, rows: Sequence[dict[str, str]]) -> Iterator[list[str]]:
    """SSD's gains, each seed's mean over all skews and numbers of clients that both have."""
    for objective in OBJECTIVES[1:]:
        ours, theirs = (
            {(row["seed"], row["alpha"], row["clients"]): float(row["p5"]) for row in own}
            for own in ([row for row in rows if row["objective"] == n] for n in (SSD, objective))
        )
        gains: dict[str, list[float]] = {}
        for place in sorted(set(ours) & set(theirs)):
            gains.setdefault(place[0], []).append(100 * (ours[place] - theirs[place]))
        if gains:
            above = interval([fmean(each) for each in gains.values()], "+.1f")
            yield [data, "all", "all", objective, *[""] * len(MEASURES), above, str(len(gains))]


def _scores(rows: Sequence[dict[str, str]]) -> list[str]:
    return [interval([float(row[name]) for row in rows]) if rows else "" for name in MEASURES]


def _above(rows: Sequence[dict[str, str]], objective: str) -> str:
    """SSD's points of p5 over another loss, split by split."""
    ours, theirs = (
        {row["seed"]: float(row["p5"]) for row in rows if row["objective"] == name}
        for name in (SSD, objective)
    )
    gains = [100 * (ours[seed] - theirs[seed]) for seed in sorted(set(ours) & set(theirs))]
    return interval(gains, "+.1f") if gains else ""
