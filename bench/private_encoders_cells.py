"""The rows that the bench of private encoders consists of, cheapest and weightiest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.private_accuracy_cells import ALIGN, GROUPS

CSV = "private_encoders.csv"
IMAGES = ("Fashion-MNIST", "MNIST-5k")
SETS_SHOWN = (*IMAGES, "digits as columns", "series")
TRAINED = (ALIGN, GROUPS)
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
    tables = SETS_SHOWN[len(IMAGES) :]
    free = [(name, "inf", "") for name in FREE]
    first = [(FISHER_PRIOR, epsilon, "sum") for epsilon in ("8", "2", "inf")]
    second = [(FISHER_PRIOR, "1", "sum")]
    second += [(WHITE_PRIOR, epsilon, "sum") for epsilon in ("inf", "8", "2", "1")]
    third = [
        (FISHER_PRIOR, epsilon, placed)
        for placed in ("client", "curator")
        for epsilon in ("8", "2")
    ]
    third += [(name, epsilon, "sum") for name in (FISHER, WHITE) for epsilon in ("2", "1")]
    parts = [(IMAGES, first + free), (IMAGES, second), (IMAGES, third), (tables, first + free)]
    for number, (sets, part) in enumerate(parts):
        for seed in range(seeds):
            yield from (Cell(data, *each, seed) for data in sets for each in part)
        if number == 0:
            yield from (Cell(data, FEDERATION, "8", "sum", 0) for data in reversed(IMAGES))
    for seed in range(seeds):
        for data in IMAGES:
            for method in TRAINED:
                for epsilon in ("inf", "8", "2"):
                    yield Cell(data, method, epsilon, "curator", seed)
