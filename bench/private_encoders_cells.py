"""The rows that the bench of private encoders consists of, cheapest and weightiest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.private_accuracy_cells import ALIGN, GROUPS

CSV, BYTES_CSV = "private_encoders.csv", "private_encoders_bytes.csv"
IMAGES = ("Fashion-MNIST", "MNIST-5k")
UPRIGHT_VIEWS = "Fashion-MNIST, upright views"
OTHERS = ("digits as columns", "series")
SETS_SHOWN = (*IMAGES, *OTHERS)
TRAINED = (ALIGN, GROUPS)
"""By one party that holds all examples."""
SSD_RUN, GROUPS_RUN = "SSD in a federation", "NT-Xent in groups of 4, in a federation"
RUNS = {SSD_RUN: "ssd", GROUPS_RUN: "nt_xent"}
"""Trained by a whole run, each client's steps noised by itself; and the objective of each."""
FRESH = range(5, 10)
"""Seeds that nothing was tried on."""
RANDOM, PUBLIC = "random encoder", "whitened by synthetic"
FREE = (RANDOM, "untrained scattering", "untrained features", PUBLIC, "ZCA")
WHITE, WHITE_PRIOR = "view moments, whitening", "view moments, whitening, prior"
FISHER, FISHER_PRIOR = "view moments, fisher", "view moments, fisher, prior"
FEDERATION = "the same out of a federation"
MAKES = {
    WHITE: ("whitening", False),
    WHITE_PRIOR: ("whitening", True),
    FISHER: ("fisher", False),
    FISHER_PRIOR: ("fisher", True),
}
ENCODERS = (
    *FREE,
    FISHER_PRIOR,
    FEDERATION,
    WHITE_PRIOR,
    FISHER,
    WHITE,
    *RUNS,
    *TRAINED,
)
"""All, in the order of the tables."""


@dataclass(frozen=True)
class Cell:
    """One encoder on one split."""

    data: str
    encoder: str
    epsilon: str
    placed: str
    seed: int


def cells(seeds: int) -> Iterator[Cell]:
    """Cheapest and weightiest first; all seeds of one part before the next part."""
    every, few = range(seeds), range(min(seeds, 3))
    free = _ways(FREE, ("inf",), "")
    main = _ways([FISHER_PRIOR], ("8", "2", "inf"))
    yield from _part(IMAGES, [*main, *free], every)
    others = _ways([WHITE_PRIOR], ("inf", "8", "2", "1"))
    for placed in ("client", "curator"):
        others += _ways([FISHER_PRIOR], ("8", "2", "1"), placed)
    yield from _part(IMAGES, [*_ways([FISHER_PRIOR], ("1",)), *others], every)
    yield from _part(IMAGES[:1], [*main[:2], *_ways((RANDOM, PUBLIC), ("inf",), "")], FRESH)
    yield from _part((UPRIGHT_VIEWS,), [*main, *_ways((PUBLIC,), ("inf",), "")], every)
    yield from _part(OTHERS, [*main, *free], every)
    yield from _part(IMAGES, _ways([FEDERATION], ("8",)), range(1))
    for epsilon in ("8", "2", "inf"):
        yield from _part(IMAGES, _ways(TRAINED, (epsilon,), "curator"), few)
    for epsilon in ("8", "2", "inf"):
        yield from _part(SETS_SHOWN[::-1], _ways(RUNS, (epsilon,), "client"), few)
    yield from _part(IMAGES, _ways((FISHER, WHITE), ("2", "1")), every)


_Way = tuple[str, str, str]


def _ways(encoders: Iterable[str], budgets: Sequence[str], placed: str = "sum") -> list[_Way]:
    return [(name, epsilon, placed) for name in encoders for epsilon in budgets]


def _part(sets: Sequence[str], ways: Sequence[_Way], seeds: Iterable[int]) -> Iterator[Cell]:
    """Split by split, so that what is known of one is at hand."""
    for seed in seeds:
        yield from (Cell(data, *way, seed) for data in sets for way in ways)
