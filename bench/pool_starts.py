"""How pools should start: does each start find the known groups, how often does it fail, and what
accuracy follows?

    python -m bench.pool_starts [--seeds 5] [--workers 2] [--scenario NAME ...]

Every scenario and seed pre-trains one SSD encoder and then tries each start on it. Rows go to
`results/pool_starts.csv`; rows already there are not measured again. The table of means is printed
at the end.

Claims: a pool set has failed when all clients choose one pool. ARI is 1 when choices equal the
known groups.

Starts are compared alone: after the warm-up clients choose freely
(`pools.keep_margin = 0`). What keeping the found groups does is measured over the same
scenarios, and uneven ones, by `bench.pool_keeping`.

Sketches are measured as they are in an open experiment, and noised as in a protected run of the
default settings (ε = 1, masks; at 3 clients a pool and more), which is left out where there are too
few clients for the pools. Noise is fresh: such a row cannot be repeated exactly.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.harness import append_row, provenance, read_rows
from secure_fl.baselines.methods import METHODS, Tables
from secure_fl.config.security import FEWEST

CSV = "pool_starts.csv"

_COMMON: Tables = {
    "data": {"test_limit": 100},
    "model": {"features": 64},
    "pretrain": {"rounds": 10, "local_epochs": 3, "batch_size": 64},
    "pools": {"rounds": 6, "local_epochs": 1},
    "evaluate": {"enabled": False},
    # starts are compared, and sums of integers differ from these in the sixth digit
    "security": {"protection": "plain"},
}


@dataclass(frozen=True)
class Scenario:
    """Data, how clients differ, and how many pools there are."""

    sources: tuple[dict[str, Any], ...]
    kind: str
    pools: int
    clients: int = 16
    groups: int = 4

    def tables(self) -> Tables:
        """The configuration's tables for it."""
        tables = {name: dict(table) for name, table in _COMMON.items()}
        tables["data"]["sources"] = self.sources
        tables["partition"] = {"kind": self.kind, "clients": self.clients, "groups": self.groups}
        tables["pools"]["count"] = self.pools
        return tables


_DIGITS, _MNIST, _FASHION = (
    {"name": "digits"},
    {"name": "mnist5k"},
    {"name": "fashion_mnist", "limit": 5000},
)
SCENARIOS = {
    "digits, 4 rotations, 4 pools": Scenario((_DIGITS,), "rotation", 4, clients=12),
    "digits, 4 rotations, 6 pools": Scenario((_DIGITS,), "rotation", 6, clients=12),
    "digits, 4 rotations, 2 pools": Scenario((_DIGITS,), "rotation", 2, clients=12),
    "digits, 4 label permutations, 4 pools": Scenario(
        (_DIGITS,), "label_permutation", 4, clients=12
    ),
    "MNIST-5k, 4 rotations, 4 pools": Scenario((_MNIST,), "rotation", 4),
    "Fashion-MNIST, 4 rotations, 4 pools": Scenario((_FASHION,), "rotation", 4),
    "MNIST-5k and Fashion-MNIST, 2 pools": Scenario((_MNIST, _FASHION), "source", 2),
}

STARTS: dict[str, Tables] = {
    "one global model": METHODS["fedavg"],
    "random": METHODS["ifca"],
    "restarts (IFCA)": METHODS["ifca-restarts"],
    "farthest (HypCluster)": METHODS["hypcluster"],
    "pretrained (CP-CFL)": METHODS["cp-cfl"],
    "sketch of embeddings, features": {
        "pools": {"start": "sketch", "sketch": "features", "sketch_of": "encoder"}
    },
    "sketch of embeddings, labelled": {
        "pools": {"start": "sketch", "sketch": "labelled", "sketch_of": "encoder"}
    },
    "sketch of embeddings, labelled, random encoder": {
        "pools": {"start": "sketch", "sketch": "labelled", "sketch_of": "encoder"},
        "pretrain": {"mode": "none"},
    },
    "sketch of examples, features": {"pools": {"start": "sketch", "sketch": "features"}},
    "sketch of examples, labelled": {"pools": {"start": "sketch", "sketch": "labelled"}},
    "noised sketch of embeddings, labelled": {
        "pools": {
            "start": "sketch",
            "sketch": "labelled",
            "sketch_of": "encoder",
            "sketch_starts": 128,
        },
        "security": {"protection": "masked"},
    },
    "noised sketch of examples, features": {
        "pools": {"start": "sketch", "sketch": "features", "sketch_starts": 128},
        "security": {"protection": "masked"},
    },
    "noised sketch of examples, labelled (default)": {
        "pools": {"start": "sketch", "sketch": "labelled", "sketch_starts": 128},
        "security": {"protection": "masked"},
    },
}


def applies(scenario: Scenario, start: str) -> bool:
    """Whether the start's protection lets so few clients fill so many pools."""
    return (
        "security" not in STARTS[start]
        or STARTS[start]["security"]["protection"] == "plain"
        or scenario.clients >= FEWEST * scenario.pools
    )


def measure(name: str, seed: int, starts: list[str]) -> Iterator[dict[str, object]]:
    """Rows of one scenario and seed."""
    from secure_fl import Federation, FederationConfig

    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as folder:
        base = {**scenario.tables(), "seed": seed}
        pretrained = Path(folder) / "encoder"
        Federation(FederationConfig(**{**base, "pools": {"enabled": False}})).run(pretrained)
        for start in starts:
            tables = {**base, "pretrain": {"mode": "load", "load_from": str(pretrained)}}
            for table, settings in STARTS[start].items():
                tables[table] = {**(tables[table] if table == "pools" else {}), **settings}
            tables["pools"]["keep_margin"] = 0.0
            pools = Federation(FederationConfig(**tables)).run().summary.pools
            yield {
                "scenario": name,
                "seed": seed,
                "start": start,
                "accuracy": round(pools.accuracy, 4),
                "accuracy_std": round(pools.accuracy_std, 4),
                "ari": round(pools.ari, 4),
                "active": pools.active,
                "largest_share": round(pools.largest_share, 4),
                "failed": int(pools.active == 1 and len(pools.counts) > 1),
            }


def _measured(name: str, seed: int, starts: list[str]) -> list[dict[str, object]]:
    return list(measure(name, seed, starts))


def run(scenarios: list[str], seeds: int, workers: int) -> None:
    """Measure what is missing, in worker processes of one thread each."""
    where = provenance()
    done = {(row["scenario"], int(row["seed"]), row["start"]) for row in read_rows(CSV)}
    missing = {(name, s) for name in scenarios for s in STARTS if applies(SCENARIOS[name], s)}
    jobs = {
        (name, seed): [s for s in STARTS if (name, s) in missing and (name, seed, s) not in done]
        for seed in range(seeds)
        for name in scenarios
    }
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(_measured, name, seed, starts)
            for (name, seed), starts in jobs.items()
            if starts
        ]
        for number, future in enumerate(as_completed(futures), 1):
            for row in future.result():
                append_row(CSV, row, where)
            print(f"{number}/{len(futures)}", row["scenario"], "seed", row["seed"], flush=True)


def table() -> str:
    """Means over seeds, as Markdown."""
    rows = read_rows(CSV)
    lines = [
        "| scenario | start | accuracy | ARI | all groups found | pools in use | failed | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for scenario in SCENARIOS:
        for start in STARTS:
            mine = [row for row in rows if row["scenario"] == scenario and row["start"] == start]
            if mine:
                accuracy, ari, active = (
                    fmean(float(row[key]) for row in mine) for key in ("accuracy", "ari", "active")
                )
                found = sum(float(row["ari"]) == 1 for row in mine)
                failed = sum(int(row["failed"]) for row in mine)
                lines.append(
                    f"| {scenario} | {start} | {accuracy:.3f} | {ari:.2f} | {found} | {active:.1f} "
                    f"| {failed} | {len(mine)} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1 (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help="only this one; may be repeated",
    )
    arguments = parser.parse_args()
    run(arguments.scenario or list(SCENARIOS), arguments.seeds, arguments.workers)
    print(table())


if __name__ == "__main__":
    main()
