"""What does encryption cost a client, the server and the key holder?

    python -m bench.secure_sum.encrypted [--fields 1000000] [--clients 4] [--repeats 7] [--results DIR]

Systems, taken in turn within every repeat so that all see the same machine: BFV under both key holders and both parameter sets,
TenSEAL CKKS in NVFlare's setting (8192, [60, 40, 40], scale 2^40, symmetric), and plain float32 addition. CPU milliseconds of one
thread, medians and minima, for one million fields (K·P, padded); bytes a field up and down; wrong integers. BFV rows are without
masks: add the `masked` bench for `bfv+masked`. Peak memory comes from a process of its own for each system.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness import RESULTS, append_row, provenance
from secure_fl.secure_sum.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.secure_sum.he_keys import HolderKey
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.parameters import BFV_4096, BFV_4096_58, KeyHolder, ParameterSet
from secure_fl.secure_sum.seal_bridge import SealBridge

CSV = "secure_sum_encrypted.csv"
Fields = NDArray[np.int64]


@dataclass
class Measured:
    """Seconds by step, one entry a repeat, and what does not vary."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    up: int = 0
    down: int = 0
    wrong: int = 0

    def timed(self, step: str, work: Callable[[], Any], share: int = 1) -> Any:
        """Run and note the CPU time, divided by `share`."""
        begin = time.process_time()
        result = work()
        self.seconds.setdefault(step, []).append((time.process_time() - begin) / share)
        return result


class Bfv:
    """Pack, encrypt and serialise; add; finish; decrypt and unpack."""

    def __init__(self, parameters: ParameterSet, key_holder: KeyHolder) -> None:
        key = HolderKey.generate(SealBridge(parameters), key_holder)
        self.client = BfvClient(key.public or key.secret)
        self.server, self.holder, self.layout = BfvServer(parameters, self.client.fingerprint), BfvHolder(key), FieldLayout()

    def run(self, vectors: list[Fields], into: Measured) -> None:
        """One round."""
        fields = vectors[0].size
        slots, clients = self.layout.slots(fields), len(vectors)
        bodies = [into.timed("protect", lambda v=v: self.client.encrypt(self.layout.pack(v))) for v in vectors]
        total = self.server.new_sum(slots)
        into.timed("server add", lambda: [self.server.add(total, body) for body in bodies], clients)
        masks = np.random.default_rng(1).integers(0, self.layout.modulus, slots, dtype=np.uint64)
        result = into.timed("server finish", lambda: self.server.subtract_plain(total, masks))
        opened = into.timed("open", lambda: self.holder.decrypt(result, slots))
        opened = ((opened.astype(np.int64) + masks.astype(np.int64)) % self.layout.modulus).astype(np.uint64)
        got = into.timed("unpack", lambda: self.layout.unpack(opened, fields))
        into.up, into.down = len(bodies[0]), len(result)
        into.wrong += int((got != sum(vectors)).sum())


class NvFlare:
    """TenSEAL's CKKS vectors, as NVFlare's HEBuilder sets them up."""

    def __init__(self) -> None:
        import tenseal as ts

        self.ts = ts
        kind = ts.ENCRYPTION_TYPE.SYMMETRIC
        self.context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=kind, n_threads=1)
        self.context.global_scale = 2.0**40
        self.public = ts.context_from(self.context.serialize(save_secret_key=False), n_threads=1)

    def run(self, vectors: list[Fields], into: Measured) -> None:
        """One round."""
        scaled = [(vector * 2.0**-19).astype(np.float32) for vector in vectors]
        with contextlib.redirect_stdout(io.StringIO()):
            bodies = [into.timed("protect", lambda v=v: self.ts.ckks_vector(self.context, v).serialize()) for v in scaled]
            total: Any = self.ts.ckks_vector_from(self.public, bodies[0])
            others = bodies[1:]
            into.timed("server add", lambda: [total.add_(self.ts.ckks_vector_from(self.public, body)) for body in others], len(others))
            result = into.timed("server finish", total.serialize)
            opened = into.timed("open", lambda: np.array(self.ts.ckks_vector_from(self.context, result).decrypt()))
        into.up, into.down = len(bodies[0]), len(result)
        into.wrong += int((np.rint(opened * 2.0**19).astype(np.int64) != sum(vectors)).sum())


class Plain:
    """float32 addition."""

    def run(self, vectors: list[Fields], into: Measured) -> None:
        """One round."""
        scaled = [vector.astype(np.float32) for vector in vectors]
        total = np.zeros_like(scaled[0])
        into.timed("server add", lambda: [np.add(total, vector, out=total) for vector in scaled], len(scaled))
        into.up = into.down = total.nbytes


SYSTEMS: dict[str, Callable[[], Any]] = {
    "plain float32": Plain,
    "bfv, clients": lambda: Bfv(BFV_4096, "clients"),
    "bfv, authority": lambda: Bfv(BFV_4096, "authority"),
    "bfv 58-bit, authority": lambda: Bfv(BFV_4096_58, "authority"),
    "CKKS as NVFlare sets it": NvFlare,
}
STEPS = ("protect", "server add", "server finish", "open", "unpack")


def vectors_of(fields: int, clients: int) -> list[Fields]:
    """Integers up to the field's edge over the number of clients."""
    rng, share = np.random.default_rng(0), (2**19 - 1) // clients
    return [rng.integers(-share, share + 1, fields) for _ in range(clients)]


def peak_memory(name: str, fields: int, clients: int) -> float:
    """MB of resident memory that one round adds, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, name, fields, clients).result()


def _peak(name: str, fields: int, clients: int) -> float:
    system, vectors = SYSTEMS[name](), vectors_of(fields, clients)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    system.run(vectors, Measured())
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """Kilobytes of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def run(fields: int, clients: int, repeats: int, results: Path) -> list[dict[str, object]]:
    """Measure every system in turn; one row each."""
    where = provenance(("tenseal", "zstandard"))
    vectors = vectors_of(fields, clients)
    systems = {name: make() for name, make in SYSTEMS.items()}
    found = {name: Measured() for name in systems}
    for repeat in range(repeats):
        for name, system in systems.items():
            system.run(vectors, found[name])
        print(f"{repeat + 1}/{repeats}", file=sys.stderr, flush=True)
    rows = []
    for name, measured in found.items():
        million = 1e6 / fields
        times = {step: [1e3 * million * t for t in measured.seconds.get(step, [])] for step in STEPS}
        row: dict[str, object] = {"system": name, "fields": fields, "clients": clients, "repeats": repeats}
        for step, values in times.items():
            row[f"{step} ms (median)"] = round(statistics.median(values), 2) if values else ""
            row[f"{step} ms (min)"] = round(min(values), 2) if values else ""
        row |= {"up B/field": round(measured.up / fields, 3), "down B/field": round(measured.down / fields, 3), "wrong": measured.wrong}
        row["peak MB"] = round(peak_memory(name, fields, clients), 1)
        append_row(CSV, row, where, results)
        rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=1_000_000, help="K·P fields a client sends (default a million)")
    parser.add_argument("--clients", type=int, default=4, help="uploads in a round, at least 2 (default 4)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV")
    arguments = parser.parse_args()
    for row in run(arguments.fields, arguments.clients, arguments.repeats, arguments.results):
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
