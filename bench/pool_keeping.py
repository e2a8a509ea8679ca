"""Do clients keep the groups that a sketch start found, and do they leave them where they
are wrong?

    python -m bench.pool_keeping [--seeds 5] [--scenario NAME ...]

The scenarios of `bench.pool_starts` at a small size, and others: two with few labels or heads that
one pool trains faster, three whose groups differ in size, two in which noise leaves nothing of the
sketches. Each starts from sketches of the examples, labelled, without pre-training, and runs
twice: choosing freely after the warm-up (`pools.keep_margin = 0`), and by the default rule. Rows
go to `results/pool_keeping.csv`; rows already there are not measured again. The table is printed
at the end.

Claims: groups are found when choices equal the known groups (ARI 1), in the warm-up and in the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.harness import append_row, provenance, read_rows
from bench.pool_starts import SCENARIOS, Scenario
from secure_fl.baselines.methods import Tables

if TYPE_CHECKING:
    from secure_fl import Dataset

CSV = "pool_keeping.csv"
MARGINS = (0.0, 0.1)
_SMALLEST = 1500
"""Examples of a source of the seven scenarios of `bench.pool_starts`."""


@dataclass(frozen=True)
class Uneven:
    """Digits, dealt to groups of clients by hand.

    Attributes:
        change: what sets group g apart: `rotated` (by g half or quarter turns), `permuted`
            (labels), `inverted` or `brighter` (pictures).
        sizes: examples of each client of each group.
        labels: share of a client's examples that have a label.
        sketch_epsilon: of the noised sketches; None: sketches are exact.
    """

    change: str
    sizes: tuple[tuple[int, ...], ...]
    labels: float = 1.0
    sketch_epsilon: float | None = None

    @property
    def groups(self) -> list[int]:
        """The group that each client is in."""
        return [group for group, sizes in enumerate(self.sizes) for _ in sizes]

    def data(self, seed: int) -> Dataset:
        """The clients' examples."""
        import torch
        from sklearn.datasets import load_digits

        from secure_fl import Dataset

        bunch, generator = load_digits(), torch.Generator().manual_seed(seed + 1000)
        images, targets = (
            torch.tensor(bunch.images / 16).float()[:, None],
            torch.tensor(bunch.target),
        )
        order, held = torch.randperm(len(targets), generator=generator), []
        permutations = [torch.arange(10)] + [
            torch.randperm(10, generator=generator) for _ in self.sizes[1:]
        ]
        lengths = [size for sizes in self.sizes for size in sizes]
        for group, index in zip(self.groups, order[: sum(lengths)].split(lengths), strict=True):
            x, y = images[index], targets[index]
            if self.change == "rotated":
                x = torch.rot90(
                    x, group * (2 if len(self.sizes) == 2 else 1), (-2, -1)
                ).contiguous()
            elif self.change == "permuted":
                y = permutations[group][y]
            elif self.change == "inverted":
                x = x if group == 0 else 1 - x
            else:
                x = x + 0.35 * group
            unlabelled = torch.rand(len(y), generator=generator) >= self.labels
            held.append((x, torch.where(unlabelled, -1, y)))
        return Dataset.from_clients(held, classes=10)


OTHERS = {
    "digits, brighter in half of the clients": Uneven("brighter", ((60,) * 6,) * 2),
    "digits, inverted in half of the clients, 3 labels in 10": Uneven(
        "inverted", ((60,) * 6,) * 2, labels=0.3
    ),
    "unbalanced: digits, inverted, 9 and 3 clients, 3 labels in 10": Uneven(
        "inverted", ((60,) * 9, (60,) * 3), labels=0.3
    ),
    "unbalanced: digits, labels permuted, 9 and 3 clients": Uneven(
        "permuted", ((60,) * 9, (60,) * 3)
    ),
    "unbalanced: digits, 3 rotations, 8, 2 and 2 clients of 120, 60 and 60": Uneven(
        "rotated", ((120,) * 8, (60,) * 2, (60,) * 2)
    ),
    "useless sketches: digits, 2 rotations": Uneven(
        "rotated", ((140,) * 6,) * 2, sketch_epsilon=0.01
    ),
    "useless sketches: digits, labels permuted in half of the clients": Uneven(
        "permuted", ((140,) * 6,) * 2, sketch_epsilon=0.01
    ),
}
ALL: dict[str, Scenario | Uneven] = {**SCENARIOS, **OTHERS}


def tables_of(scenario: Scenario | Uneven, seed: int, margin: float) -> Tables:
    """The configuration of one run."""
    tables: dict[str, Any] = (
        scenario.tables() if isinstance(scenario, Scenario) else {"partition": {"kind": "natural"}}
    )
    count = scenario.pools if isinstance(scenario, Scenario) else len(scenario.sizes)
    sources = tuple(
        {"limit": _SMALLEST, **source} for source in tables.get("data", {}).get("sources", ())
    )
    noised = isinstance(scenario, Uneven) and scenario.sketch_epsilon is not None
    return tables | {
        "seed": seed,
        "data": {"test_limit": 50, **({"sources": sources} if sources else {"test_fraction": 0.3})},
        "model": {"features": 32},
        "pretrain": {"mode": "none"},
        "pools": {
            "count": count,
            "rounds": 8,
            "local_epochs": 1,
            "start": "sketch",
            "sketch": "labelled",
            "keep_margin": margin,
        },
        "evaluate": {"enabled": False},
        "security": {"protection": "masked" if noised else "plain"},
        **(
            {"privacy": {"sketch_epsilon": scenario.sketch_epsilon}}
            if isinstance(scenario, Uneven) and noised
            else {}
        ),
    }


def measure(name: str, seed: int, margin: float) -> dict[str, object]:
    """One row."""
    from sklearn.metrics import adjusted_rand_score

    from secure_fl import Federation, FederationConfig

    scenario = ALL[name]
    data = scenario.data(seed) if isinstance(scenario, Uneven) else None
    federation = Federation(FederationConfig(**tables_of(scenario, seed, margin)), data=data)
    groups = (
        scenario.groups
        if isinstance(scenario, Uneven)
        else [client.group for client in federation.clients]
    )
    result = federation.run()
    first = next(record for record in result.records if record.phase == "cluster").metrics.choices
    at_first, in_the_end = (
        adjusted_rand_score(groups, [choices[client] for client in range(len(groups))])
        for choices in ({int(client): pool for client, pool in first.items()}, result.choices)
    )
    pools = result.summary.pools
    return {
        "scenario": name,
        "seed": seed,
        "keep_margin": margin,
        "ari_warm_up": round(at_first, 4),
        "ari": round(in_the_end, 4),
        "accuracy": round(pools.accuracy, 4),
        "active": pools.active,
    }


def run(names: Sequence[str], seeds: int) -> None:
    """Measure what is missing."""
    where = provenance()
    done = {
        (row["scenario"], int(row["seed"]), float(row["keep_margin"])) for row in read_rows(CSV)
    }
    for name in names:
        for seed in range(seeds):
            for margin in MARGINS:
                if (name, seed, margin) not in done:
                    append_row(CSV, measure(name, seed, margin), where)
        print(name, flush=True)


def table() -> str:
    """Rates and means over seeds, as Markdown."""
    rows = read_rows(CSV)
    lines = [
        (
            "| scenario | keep_margin | found in the warm-up | found in the end | ARI | accuracy | "
            "pools in use | seeds |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ALL:
        for margin in MARGINS:
            mine = [
                row
                for row in rows
                if row["scenario"] == name and float(row["keep_margin"]) == margin
            ]
            if mine:
                first, end = (
                    sum(float(row[key]) == 1 for row in mine) for key in ("ari_warm_up", "ari")
                )
                ari, accuracy, active = (
                    fmean(float(row[key]) for row in mine) for key in ("ari", "accuracy", "active")
                )
                lines.append(
                    f"| {name} | {margin:g} | {first} | {end} | {ari:.2f} | {accuracy:.3f} | "
                    f"{active:.1f} | {len(mine)} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1 (default 5)")
    parser.add_argument(
        "--scenario", action="append", choices=list(ALL), help="only this one; may be repeated"
    )
    arguments = parser.parse_args()
    run(arguments.scenario or list(ALL), arguments.seeds)
    print(table())


if __name__ == "__main__":
    main()
