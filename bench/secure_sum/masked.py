"""What masks cost: nanoseconds a field, a client's and a server's, beside adding plain floats in the same rounds.

    python -m bench.secure_sum.masked [--parameters 1000000 11000000] [--pools 1 4 8] [--neighbours 8] [--rounds 7]

A vector has K·P fields: one pool's update and zeros for the others, all masked. Steps: `protect` (quantise, pack, one self mask and a
stream for each neighbour, bytes), `add` (a body into the running sum), `unmask` (a live client's self mask), `unpack`. Yardsticks:
`plain add` (float32 into float32, what an unprotected server does) and `floor` (AES-256-CTR over the same keystream bytes and nothing
else: `protect` cannot be faster). CPU time of one thread, medians over rounds in which all steps take turns. `peak` is the most memory
that `protect` holds beside its input, in masked vectors. Rows go to `results/secure_sum_masked.csv`.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.harness import append_row, provenance
from secure_fl.secure_sum.codec import Codec
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.masks import SlotSum, UsedSeeds, mask, self_seeds
from secure_fl.secure_sum.plain import from_bytes, to_bytes
from secure_fl.secure_sum.prg import WORDS, Slots, add_into

CSV = "secure_sum_masked.csv"
LAYOUTS = {"masked, 3 fields modulo 2^64": FieldLayout.words(), "under BFV, 2 fields modulo t": FieldLayout()}
_PIECE = bytes(1 << 18)


@dataclass(frozen=True)
class Case:
    """One size."""

    layout: str
    parameters: int
    pools: int
    neighbours: int

    @property
    def fields(self) -> int:
        """K·P."""
        return self.parameters * self.pools


class Bench:
    """All steps of a case, with what they work on."""

    def __init__(self, case: Case) -> None:
        self.case, self.layout = case, LAYOUTS[case.layout]
        self.codec = Codec.derive(clients=case.neighbours + 1, width=case.parameters, pools=case.pools, clip=1.0, layout=self.layout)
        draw = np.random.default_rng(0).standard_normal(case.parameters, np.float32)
        self.update = draw / (np.linalg.norm(draw.astype(np.float64)) * 1.0001).astype(np.float32)
        self.bodies = self.protect()
        self.totals = [SlotSum(self.layout.slots(case.parameters), self.layout.modulus) for _ in range(case.pools)]
        self.opened = [self.codec.pack(np.zeros(case.parameters, np.int64)) for _ in range(case.pools)]
        self.floats, self.sum = np.zeros(case.fields, np.float32), np.zeros(case.fields, np.float32)

    def protect(self) -> list[bytes]:
        """K masked blocks as bytes."""
        used, bodies = UsedSeeds(), []
        for block in range(self.case.pools):
            slots: Slots = self.codec.encode(self.update) if block == 0 else np.zeros(self.layout.slots(self.case.parameters), np.uint64)
            own, *pairs = self_seeds(1 + self.case.neighbours)
            mask(slots, own=0, self_seed=own, pairs=dict(enumerate(pairs, 1)), modulus=self.layout.modulus, used=used)
            bodies.append(to_bytes(slots))
        return bodies

    def add(self) -> None:
        """One client's blocks into the sums."""
        for total, body in zip(self.totals, self.bodies, strict=True):
            total.add(from_bytes(body, self.layout.slots(self.case.parameters)))

    def unmask(self) -> None:
        """One live client's self masks."""
        for slots in self.opened:
            add_into(slots, os.urandom(32), -1, self.layout.modulus)

    def unpack(self) -> None:
        """Opened blocks to integers."""
        for slots in self.opened:
            self.codec.unpack(slots, self.case.parameters)

    def plain_add(self) -> None:
        """The yardstick of `add`."""
        np.add(self.sum, self.floats, out=self.sum)

    def floor(self) -> None:
        """The yardstick of `protect`: keystream bytes of all streams, cipher alone."""
        width = 8 if self.layout.modulus == WORDS else 5
        out = bytearray(len(_PIECE))
        for _ in range(1 + self.case.neighbours):
            cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
            left = width * self.layout.slots(self.case.fields)
            while left > 0:
                cipher.update_into(_PIECE, out)
                left -= len(_PIECE)

    def steps(self) -> dict[str, Callable[[], object]]:
        """By name."""
        return {
            "protect": self.protect,
            "floor": self.floor,
            "add": self.add,
            "plain add": self.plain_add,
            "unmask": self.unmask,
            "unpack": self.unpack,
        }


def timed(step: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def peak(step: Callable[[], object]) -> int:
    """Bytes that a call holds at most beside what was there before."""
    tracemalloc.start()
    step()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def measure(case: Case, rounds: int) -> dict[str, object]:
    """One row."""
    bench = Bench(case)
    steps = bench.steps()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name in steps if number % 2 else reversed(steps):
            seconds[name].append(timed(steps[name]))
    fields = case.fields
    sent = sum(len(body) for body in bench.bodies)
    row: dict[str, object] = {**asdict(case), "rounds": rounds}
    row |= {f"{name}_ns": round(median(times) * 1e9 / fields, 3) for name, times in seconds.items()}
    row |= {
        "add_ratio": round(median(a / b for a, b in zip(seconds["add"], seconds["plain add"], strict=True)), 3),
        "floor_share": round(median(b / a for a, b in zip(seconds["protect"], seconds["floor"], strict=True)), 3),
        "bytes_a_field": round(sent / fields, 4),
        "peak_vectors": round(peak(bench.protect) / sent, 2),
    }
    return row


def run(cases: Iterable[Case], rounds: int) -> None:
    """Measure, append, print."""
    where = provenance(("cryptography",))
    for case in cases:
        row = measure(case, rounds)
        append_row(CSV, row, where)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="+", default=[1_000_000, 11_000_000])
    parser.add_argument("--pools", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--neighbours", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    sizes = [(parameters, pools) for parameters in arguments.parameters for pools in arguments.pools]
    run([Case(layout, *size, arguments.neighbours) for size in sizes for layout in LAYOUTS], arguments.rounds)


if __name__ == "__main__":
    main()
