"""What the experimental RLWE pad costs: processor time of one thread, for a million fields and
nine clients.

python -m bench.secure_sum.pad [FIELDS]
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles
from typing import TypeVar

import numpy as np

from secure_fl.experimental.rlwe_pad import ExperimentalWarning, PadPlan, PadSum, RlwePad
from secure_fl.experimental.rlwe_ring import DEGREE, Integers
from secure_fl.secure_sum.masks import UsedSeeds

CLIENTS, REPEATS = 9, 9
T = TypeVar("T")


def timed(row: list[float], work: Callable[[], T]) -> T:
    """What the work gives; its milliseconds of processor time go into the row."""
    start = time.process_time()
    found = work()
    row.append(1e3 * (time.process_time() - start))
    return found


def repeat(plan: PadPlan, values: dict[str, Integers], rows: dict[str, list[float]]) -> int:
    """One sum; how many integers of it were wrong."""
    total, secrets = PadSum(plan), np.zeros(DEGREE, np.int64)
    for name, row in values.items():
        pad = RlwePad(plan, UsedSeeds())
        upload = timed(rows["protect"], partial(pad.protect, row))
        timed(rows["add"], partial(total.add, name, upload))
        secrets += pad.secret
    opened = timed(rows["open"], partial(total.open, list(values), secrets))
    return int((opened != np.sum(list(values.values()), axis=0)).sum())


def main(fields: int) -> None:
    """Print each figure's median, and its 0.2 and 0.8 quantiles."""
    warnings.simplefilter("ignore", ExperimentalWarning)
    plan, rng = PadPlan("bench", 0, 0, fields, CLIENTS), np.random.default_rng(0)
    values = {f"c{k}": rng.integers(-plan.bound, plan.bound + 1, fields) for k in range(CLIENTS)}
    rows: dict[str, list[float]] = {"protect": [], "add": [], "open": []}
    wrong = sum(repeat(plan, values, rows) for _ in range(REPEATS))
    for name, found in rows.items():
        low, *_, high = quantiles(found, n=5)
        print(f"{name:8s} {median(found):7.2f} ms ({low:.2f} to {high:.2f})")
    print(f"upload   {plan.upload_bytes / fields:7.4f} B a field; wrong integers: {wrong}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
