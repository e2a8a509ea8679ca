"""What does a whole round of the secure sum cost, phase by phase, beside plain float32 addition?

    python -m bench.secure_sum.round [--fields 1000000] [--clients 4] [--pools 1 4 8] [--repeats 3] [--results DIR]

All parties in one process, with one thread; wall-clock milliseconds per million fields (K·P), medians over rounds after one to warm up.
Columns of clients are those of one client; `open` is everything after the uploads. Bytes a field go up and down for one client, and to
the key holder. Every opened integer is compared with the plain sum: `wrong` counts those that differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.harness import RESULTS, append_row, provenance
from secure_fl.secure_sum.round_plan import BlockShape, BlockVector
from secure_fl.secure_sum.secure_sum import EmbeddedFederation, Outcome

CSV = "secure_sum_round.csv"
SYSTEMS = (("plain", "clients"), ("masked", "clients"), ("bfv", "clients"), ("bfv+masked", "clients"), ("bfv+masked", "authority"))
BEFORE = ("advertise", "share")
AFTER = ("agree", "open_counts", "open_pools", "apply")


def vectors_of(shape: BlockShape, names: list[str]) -> dict[str, BlockVector]:
    """Clients deal themselves over the pools, two to each as far as they go."""
    rng, share = np.random.default_rng(0), (2**19 - 1) // len(names)
    return {
        name: BlockVector.one_hot(shape, number // 2 % shape.pools, rng.integers(-share, share + 1, shape.width)) for number, name in enumerate(names)
    }


def wrong_integers(outcome: Outcome, vectors: Mapping[str, BlockVector]) -> int:
    """Opened integers that are not the sum."""
    wrong = 0
    for pool, opened in outcome.opened.pools.items():
        wrong += int((opened != sum(vector.pools[pool] for vector in vectors.values())).sum())
    return wrong


def float_add(fields: int, repeats: int) -> float:
    """Milliseconds of one float32 addition of so many fields, median."""
    total, one, seconds = np.zeros(fields, np.float32), np.ones(fields, np.float32), []
    for _ in range(5 * repeats):
        begin = time.perf_counter()
        np.add(total, one, out=total)
        seconds.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(seconds)


def measure(system: tuple[str, str], shape: BlockShape, clients: int, repeats: int) -> dict[str, object]:
    """One row."""
    federation = EmbeddedFederation(clients, protection=system[0], key_holder=system[1])
    vectors = vectors_of(shape, list(federation.clients))
    outcomes = [federation.round(number, vectors, shape) for number in range(repeats + 1)]
    million, last = 1e6 / (shape.pools * shape.width), outcomes[-1]

    def middle(phases: tuple[str, ...], party: str, share: int = 1) -> float:
        sums = [sum(outcome.seconds.get(phase, {}).get(party, 0.0) for phase in phases) for outcome in outcomes[1:]]
        return round(1e3 * million * statistics.median(sums) / share, 2)

    def each(table: Mapping[str, int], phases: tuple[str, ...]) -> float:
        return round(sum(table.get(phase, 0) for phase in phases) / clients / (shape.pools * shape.width), 4)

    return {
        "keys client ms": middle(BEFORE, "clients", clients),
        "protect client ms": middle(("upload",), "clients", clients),
        "add server ms": middle(("upload",), "server", clients),
        "shares client ms": middle(("agree", "open_counts"), "clients", clients),
        "open server ms": middle((*AFTER, *BEFORE), "server"),
        "open holder ms": round(middle(("open_pools", "apply"), "clients") + middle(AFTER, "holder"), 2),
        "keys up B/field": each(last.up, BEFORE),
        "upload B/field": each(last.up, ("upload",)),
        "opening up B/field": each(last.up, AFTER),
        "down B/field": each(last.down, (*BEFORE, *AFTER)),
        "pools opened": len(last.opened.pools),
        "wrong": sum(wrong_integers(outcome, vectors) for outcome in outcomes),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=1_000_000, help="K·P (default a million)")
    parser.add_argument("--clients", type=int, default=4, help="clients of a round (default 4)")
    parser.add_argument("--pools", type=int, nargs="+", default=[1, 4, 8], help="values of K (default 1 4 8)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV")
    arguments = parser.parse_args()
    where = provenance(("tenseal", "zstandard", "cryptography"))
    addition = float_add(arguments.fields, arguments.repeats) * 1e6 / arguments.fields
    for pools in arguments.pools:
        shape = BlockShape(pools, arguments.fields // pools)
        for system in SYSTEMS:
            row: dict[str, object] = {"protection": system[0], "key holder": system[1], "K": pools, "fields": pools * shape.width}
            row |= {"clients": arguments.clients, "repeats": arguments.repeats}
            row |= measure(system, shape, arguments.clients, arguments.repeats) | {"float32 add ms": round(addition, 3)}
            append_row(CSV, row, where, arguments.results)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
