"""How private can the sketch start be? The best sketch, and the smallest ε at which it still finds every group.

    python -m bench.private_sketch [--draws 12] [--name fashion_mnist]

Sixteen clients in four groups. First the shape of the sketch (dimensions, centring and its share of the budget, moments) on one setting; then the
project's defaults over kinds of group and client sizes. Every draw is another deal of the data, another projection and other noise.
The encoder is the project's SSD pre-training, short (5 rounds of 2 epochs on 300 examples a client) and not private: its own ε comes on top.
Rows go to `results/private_sketch.csv`; settings with rows there are not measured again. k-means over released sketches is free.

Claims: ε is that of both releases together, example level, δ = 1e-5. "Found" is an adjusted Rand index of 1.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import fmean
from typing import Any

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

from bench.harness import append_row, provenance, read_rows
from secure_fl import Federation, FederationConfig
from secure_fl.data.partitions import partition
from secure_fl.data.sources import load_sources
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.private_sketch import PrivateSketch, on_grid
from secure_fl.privacy.units import Adjacency
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed
from secure_fl_kernels.reference import normalize

CSV = "private_sketch.csv"
CLIENTS, GROUPS, DELTA, WIDTH = 16, 4, 1e-5, 128
NOISES = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
MOMENT_SHARE = 0.2
"""Share of a contribution's squared length that second moments get, where they are tried."""


@dataclass(frozen=True)
class Setting:
    """One row's facts, noise and draw apart."""

    groups: str
    size: int
    labelled: bool
    dimensions: int
    centring: float
    moments: int = 0

    def sketch(self, noise: float, seed: int) -> PrivateSketch:
        """The mechanism of a draw."""
        made: dict[str, Any] = {"features": WIDTH, "seed": seed, "dimensions": self.dimensions, "centring": self.centring}
        if self.moments:
            return WithMoments(noise, **made, moments=self.moments)
        return PrivateSketch(noise, **made, classes=10 if self.labelled else 0)


@dataclass(frozen=True)
class WithMoments(PrivateSketch):
    """Joined to the sketch, squares along random directions, less their mean: what a mean cannot tell. Length 1 in all."""

    moments: int = 0

    def contributions(self, features: Tensor, labels: Tensor | None, centre: Tensor | None) -> Tensor:
        """As the parent's, `[N, part + moments]`."""
        first = super().contributions(features, labels, centre)
        generator = torch.Generator().manual_seed(self.seed)
        directions = normalize(torch.randn(self.moments, self.part, generator=generator, dtype=torch.float64))
        square = on_grid((normalize(first.double()) @ directions.T).square() - 1 / self.part)
        return torch.cat([first * sqrt(1 - MOMENT_SHARE), square * sqrt(MOMENT_SHARE)], 1).trunc().long()


def _shapes() -> list[Setting]:
    """The search for the best sketch: four rotations, 300 examples a client, no labels."""
    dimensions = [Setting("rotation", 300, False, d, 0.2) for d in (8, 16, 24, 32, 64, 128)]
    shares = [Setting("rotation", 300, False, 16, share) for share in (0.02, 0.05, 0.1, 0.4)]
    uncentred = [Setting("rotation", 300, False, d, 0.0) for d in (16, 32, 128)]
    return [*dimensions, *shares, *uncentred, Setting("rotation", 300, False, 16, 0.2, moments=8)]


def _labelled_shapes() -> list[Setting]:
    return [Setting("label_permutation", 300, True, d, 0.2) for d in (4, 16, 32)]


def _defaults() -> list[Setting]:
    """The project's defaults over kinds of group and sizes."""
    kinds = [("rotation", False, 16), ("rotation", True, 8), ("label_permutation", True, 8)]
    return [Setting(groups, size, labelled, d, 0.2) for groups, labelled, d in kinds for size in (100, 300, 1000)]


def _config(name: str, groups: str, size: int, seed: int) -> FederationConfig:
    tables: dict[str, Any] = {
        "seed": seed,
        "data": {"sources": ({"name": name, "limit": CLIENTS * size},), "test_limit": 10},
        "partition": {"kind": groups, "clients": CLIENTS, "groups": GROUPS},
        "pretrain": {"rounds": 5, "local_epochs": 2, "batch_size": 64},
        "model": {"features": WIDTH},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
    }
    return FederationConfig(**tables)


@cache
def _encoder(name: str, groups: str) -> nn.Module:
    return Federation(_config(name, groups, 300, 1000)).run().encoder


@cache
def _clients(name: str, groups: str, size: int, seed: int) -> list[tuple[Tensor, Tensor, int]]:
    """Embeddings, labels and true group of every client, for one deal of the data."""
    config = _config(name, groups, size, seed)
    dealt, compute = partition(load_sources(config.data, seed), config), Compute.of(config.runtime)
    return [(embed(_encoder(name, groups), c.train.x, compute), c.train.y, int(c.group or 0)) for c in dealt]


def found(name: str, setting: Setting, noise: float, draw: int) -> float:
    """Adjusted Rand index of the groups found, in one draw."""
    # A few deals serve all draws: dealing and embedding cost a hundred times what a sketch does.
    clients = _clients(name, setting.groups, setting.size, draw % 4)
    sketch, source, centre = setting.sketch(noise, draw), NoiseSource.for_tests(draw), None
    if setting.centring:
        shares = [sketch.release_mean(x, len(x), source.stream(client=i, round=0, purpose="centre")) for i, (x, _, _) in enumerate(clients)]
        centre = torch.stack(shares).mean(0)
    released = [
        sketch.release(x, y if setting.labelled else None, len(x), centre, source.stream(client=i, round=0, purpose="sketch"))
        for i, (x, y, _) in enumerate(clients)
    ]
    groups = KMeans(GROUPS, n_init=32, random_state=0).fit_predict(torch.stack(released).numpy())
    return float(adjusted_rand_score([group for *_, group in clients], groups))


def measure(name: str, setting: Setting, draws: int) -> list[dict[str, object]]:
    """Rows of one setting, from little noise to the first that hides the groups (mean ARI below a half)."""
    rows: list[dict[str, object]] = []
    for noise in NOISES:
        scores = [found(name, setting, noise, draw) for draw in range(draws)]
        events = setting.sketch(noise, 0).events()
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
    """For every setting the largest noise at which each draw, and at which nine draws in ten, found all groups, as Markdown."""
    rows = read_rows(CSV)
    lines = [
        "| groups | size | sketch | centring | ε, every draw (zero-out / replace-one) | ε, 9 in 10 | ARI at σ = 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for fact in dict.fromkeys(map(_facts, rows)):
        mine = [row for row in rows if _facts(row) == fact]
        _, groups, size, labelled, dimensions, centring, moments = fact
        sketch = f"{dimensions}{' a label' if labelled == 'True' else ''}{f' and {moments} moments' if moments != '0' else ''}"
        at_four = next((row["ari"] for row in mine if float(row["noise"]) == 4), "–")
        lines.append(f"| {groups} | {size} | {sketch} | {centring} | {_smallest(mine, 1.0)} | {_smallest(mine, 0.9)} | {at_four} |")
    return "\n".join(lines)


def _smallest(rows: list[dict[str, str]], share: float) -> str:
    """ε at the largest noise up to which the groups were found in that share of draws; noise above a first failure does not count."""
    best = "none"
    for row in rows:
        if int(row["found"]) < share * int(row["draws"]):
            break
        best = f"{float(row['epsilon_zero_out']):.2f} / {float(row['epsilon_replace_one']):.2f} (σ = {row['noise']})"
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=12, help="draws a setting and noise (default 12)")
    parser.add_argument("--name", default="fashion_mnist", choices=["fashion_mnist", "mnist5k", "digits"], help="data (default fashion_mnist)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Number of distinct clusters")
    where, done = provenance(), set(map(_facts, read_rows(CSV)))
    for setting in dict.fromkeys([*_defaults(), *_shapes(), *_labelled_shapes()]):
        if _facts({"data": arguments.name, **vars(setting)}) in done:
            continue
        for row in measure(arguments.name, setting, arguments.draws):
            append_row(CSV, row, where)
        print(*vars(setting).values(), "measured", flush=True)
    print(table())


if __name__ == "__main__":
    main()
