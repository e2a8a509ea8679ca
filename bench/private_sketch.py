"""How private can the sketch start be? The best sketch, and the smallest ε at which it still finds
every group.

    python -m bench.private_sketch [--draws 12] [--name fashion_mnist]

Sixteen clients in four groups (digits: twelve, who share all of them, 120 each). First the
project's defaults over kinds of group and client sizes, of examples and of embeddings; then the
shape of the sketch on one setting (dimensions, share of the budget for the centre, codes or parts
for labels). Every draw is another deal of the data, another projection and other noise; k-means is
the runs' own. The encoder is the project's SSD pre-training, short (5 rounds of 2 epochs on 300
examples a client) and not private: its own ε comes on top. Rows go to `results/private_sketch.csv`;
settings with rows there are not measured again. k-means over released sketches is free.

Claims: ε is that of both releases together, example level, δ = 1e-5. "Found" is an adjusted Rand
index of 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean
from typing import Any

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

from bench.harness import append_row, provenance, read_rows
from secure_fl import Federation, FederationConfig
from secure_fl.data.partitions import partition
from secure_fl.data.pooled import pooled_values
from secure_fl.data.sources import load_sources
from secure_fl.pools.sketch import first_centres, moved_centres, tightest_start
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.private_sketch import PrivateSketch
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed

CSV = "private_sketch.csv"
GROUPS, DELTA, WIDTH = 4, 1e-5, 128
STARTS, ITERATIONS = 128, 15
ONE = 3.7307
"""Noise multiplier at which both releases together cost ε = 1, the default, under zero-out."""
NOISES = (0.25, 0.5, 1.0, 2.0, 3.0, ONE, 6.0, 8.0, 12.0, 16.0, 24.0)


@dataclass(frozen=True)
class Setting:
    """One row's facts, noise and draw apart. `dimensions` 0 stands for the default; `fewest`
    sketches are in every group, if any start has it so.
    """

    groups: str
    size: int
    labelled: bool
    of: str = "examples"
    dimensions: int = 0
    centring: float = 0.1
    parts: bool = False
    fewest: int = 3

    def sketch(self, noise: float, seed: int, features: int) -> PrivateSketch:
        """The mechanism of a draw."""
        kind = WithParts if self.parts else PrivateSketch
        return kind(
            noise,
            features,
            seed,
            10 if self.labelled else 0,
            self.dimensions or None,
            self.centring,
        )


class WithParts(PrivateSketch):
    """A part of the sketch for each label, instead of codes: the same signal in more
    coordinates.
    """

    @cached_property
    def codes(self) -> Tensor:
        return torch.eye(self.classes, dtype=torch.float64)


def _shapes(size: int) -> list[Setting]:
    """The search for the best sketch."""
    plain = [Setting("rotation", size, False, dimensions=d) for d in (4, 8, 16)]
    coded = [Setting("label_permutation", size, True, dimensions=d) for d in (3, 4, 8, 12)]
    shares = [
        Setting("label_permutation", size, True, centring=share) for share in (0.0, 0.05, 0.2, 0.4)
    ]
    parts = [
        Setting(groups, size, True, dimensions=d, parts=True)
        for groups in ("rotation", "label_permutation")
        for d in (4, 8)
    ]
    strays = [Setting(groups, size, True, fewest=1) for groups in ("rotation", "label_permutation")]
    return [*plain, *coded, *shares, *parts, *strays]


def _defaults(name: str) -> list[Setting]:
    """The project's defaults over kinds of group and sizes, and the same of embeddings."""
    sizes = (120,) if name == "digits" else (50, 100, 300, 1000)
    kinds = [("rotation", False), ("rotation", True), ("label_permutation", True)]
    return [
        Setting(groups, size, labelled, of)
        for of in ("examples", "encoder")
        for groups, labelled in kinds
        for size in sizes
    ]


def _config(name: str, groups: str, size: int, seed: int) -> FederationConfig:
    digits = name == "digits"
    tables: dict[str, Any] = {
        "seed": seed,
        "data": {
            "sources": ({"name": name} if digits else {"name": name, "limit": 16 * size},),
            "test_limit": 10,
        },
        "partition": {"kind": groups, "clients": 12 if digits else 16, "groups": GROUPS},
        "pretrain": {"rounds": 5, "local_epochs": 2, "batch_size": 64},
        "model": {"features": WIDTH},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "security": {"protection": "plain"},
    }
    return FederationConfig(**tables)


@cache
def _encoder(name: str, groups: str) -> nn.Module:
    return Federation(_config(name, groups, 300, 1000)).run().encoder


@cache
def _clients(
    name: str, groups: str, size: int, of: str, seed: int
) -> list[tuple[Tensor, Tensor, int]]:
    """Vectors, labels and true group of every client, for one deal of the data."""
    config = _config(name, groups, size, seed)
    dealt, compute = partition(load_sources(config.data, seed), config), Compute.of(config.runtime)
    vectors = (
        pooled_values(c.train.x)
        if of == "examples"
        else embed(_encoder(name, groups), c.train.x, compute)
        for c in dealt
    )
    return [(x, c.train.y, int(c.group or 0)) for x, c in zip(vectors, dealt, strict=True)]


def released(name: str, setting: Setting, noise: float, draw: int) -> tuple[Tensor, list[int]]:
    """The noised sketches of one draw `[clients, S]`, and each client's true group."""
    # A few deals serve all draws: dealing and embedding cost a hundred times what a sketch does.
    clients = _clients(name, setting.groups, setting.size, setting.of, draw % 4)
    sketch, source, centre = (
        setting.sketch(noise, draw, clients[0][0].shape[1]),
        NoiseSource.for_tests(draw),
        None,
    )
    if setting.centring:
        shares = [
            sketch.release_mean(x, len(x), source.stream(client=i, round=0, purpose="centre"))
            for i, (x, _, _) in enumerate(clients)
        ]
        centre = torch.stack(shares).mean(0)
    sketches = [
        sketch.release(
            x,
            y if setting.labelled else None,
            len(x),
            centre,
            source.stream(client=i, round=0, purpose="sketch"),
        )
        for i, (x, y, _) in enumerate(clients)
    ]
    return torch.stack(sketches), [group for *_, group in clients]


def found(name: str, setting: Setting, noise: float, draw: int) -> float:
    """Adjusted Rand index of the groups found, in one draw."""
    sketches, groups = released(name, setting, noise, draw)
    return float(adjusted_rand_score(groups, k_means(sketches, draw, setting.fewest)))


def k_means(sketches: Tensor, seed: int, fewest: int) -> list[int]:
    """Groups as a run finds them, the sums of all clients' votes taken at once."""
    points = sketches - sketches.mean(0)
    centres = first_centres(
        STARTS, GROUPS, points.shape[1], float(points.square().sum(1).mean().sqrt()), seed
    ).double()
    for number in range(ITERATIONS):
        distance = torch.cdist(points.expand(STARTS, -1, -1), centres).square()
        votes = torch.nn.functional.one_hot(distance.argmin(2), GROUPS).double()
        counts, distortion = votes.sum(1), (votes * distance).sum(1)
        moved = moved_centres(votes.mT @ points, counts, distortion, seed + number).double()
        if float((moved - centres).abs().max()) < 1e-9:
            break
        centres = moved
    return [int(group) for group in distance[tightest_start(distortion, counts, fewest)].argmin(1)]


def measure(name: str, setting: Setting, draws: int) -> list[dict[str, object]]:
    """Rows of one setting, from little noise to the first that hides the groups (mean ARI below
    a half).
    """
    rows: list[dict[str, object]] = []
    for noise in NOISES:
        scores = [found(name, setting, noise, draw) for draw in range(draws)]
        events = setting.sketch(noise, 0, WIDTH).events()
        rows.append(
            {
                "data": name,
                **vars(setting),
                "noise": noise,
                "epsilon_zero_out": round(epsilon(events, DELTA, Adjacency.ZERO_OUT), 4),
                "epsilon_replace_one": round(epsilon(events, DELTA, Adjacency.REPLACE_ONE), 4),
                "draws": draws,
                "ari": round(fmean(scores), 4),
                "found": sum(score == 1 for score in scores),
            }
        )
        if fmean(scores) < 0.5:
            break
    return rows


def _facts(row: Mapping[str, object]) -> tuple[str, ...]:
    """What tells settings apart in the CSV."""
    return tuple(str(row[key]) for key in ("data", *Setting.__dataclass_fields__))


def table() -> str:
    """For every setting the largest noise at which each draw, and at which nine draws in ten, found
    all groups, as Markdown.
    """
    rows = read_rows(CSV)
    lines = [
        (
            "| data | groups | size | sketch | centring | ε, every draw (zero-out / replace-one) | "
            "ε, 9 in 10 | found at ε = 1 |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for fact in dict.fromkeys(map(_facts, rows)):
        mine = [row for row in rows if _facts(row) == fact]
        data, groups, size, labelled, of, dimensions, centring, parts, fewest = fact
        how = ("parts" if parts == "True" else "codes") if labelled == "True" else "no labels"
        sketch = (
            f"of {of}, {how}, {'default' if dimensions == '0' else dimensions} "
            f"dimensions{', strays alone' if fewest == '1' else ''}"
        )
        at_one = next(
            (f"{row['found']} of {row['draws']}" for row in mine if float(row["noise"]) == ONE), "–"
        )
        lines.append(
            f"| {data} | {groups} | {size} | {sketch} | {centring} | {_smallest(mine, 1.0)} | "
            f"{_smallest(mine, 0.9)} | {at_one} |"
        )
    return "\n".join(lines)


def _smallest(rows: list[dict[str, str]], share: float) -> str:
    """ε at the largest noise up to which the groups were found in that share of draws; noise above
    a first failure does not count.
    """
    best = "none"
    for row in rows:
        if int(row["found"]) < share * int(row["draws"]):
            break
        best = (
            f"{float(row['epsilon_zero_out']):.2f} / {float(row['epsilon_replace_one']):.2f} (σ = "
            f"{row['noise']})"
        )
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--draws", type=int, default=12, help="draws a setting and noise (default 12)"
    )
    parser.add_argument(
        "--name",
        default="fashion_mnist",
        choices=["fashion_mnist", "mnist5k", "digits"],
        help="data (default fashion_mnist)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where, done = provenance(), set(map(_facts, read_rows(CSV)))
    for setting in dict.fromkeys(
        [*_defaults(arguments.name), *_shapes(120 if arguments.name == "digits" else 100)]
    ):
        if _facts({"data": arguments.name, **vars(setting)}) in done:
            continue
        for row in measure(arguments.name, setting, arguments.draws):
            append_row(CSV, row, where)
        print(*vars(setting).values(), "measured", flush=True)
    print(table())


if __name__ == "__main__":
    main()
