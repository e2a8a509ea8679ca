"""The secure sum's targets, each with its figure, beside NVFlare's TenSEAL setting and plain
float32 addition.

    python -m bench.secure_sum.bar [--parameters 1000000] [--pools 1] [--repeats 5]
                                   [--full] [--page]

Nine clients, so eight neighbours each. Milliseconds of processor time of one thread for a million
fields (K·P), medians over clients and repeats with their 0.2 and 0.8 quantiles; in every repeat all
systems take turns, so that a busy machine slows all alike. `--full` measures 1 and 11 million
parameters with 1, 4 and 8 pools (an hour or more, and many gigabytes). Rows go to
`bench/results/secure_sum.csv`; `--page` writes them into `docs/secure-sum-speed.md`
(`--page --repeats 0` does no more than that).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.harness import RESULTS, append_row, provenance
from bench.secure_sum.page import CSV, write_page
from bench.secure_sum.systems import CLIENTS, Floats, NvFlare, Samples, SecureRounds, peaks
from secure_fl.secure_sum.blocks import BlockShape

FLOATS, NVFLARE = "float32, plain", "CKKS as NVFlare sets it"
PROTECTIONS = {
    "masked": ("masked", "clients"),
    "bfv+masked, clients": ("bfv+masked", "clients"),
    "bfv+masked, authority": ("bfv+masked", "authority"),
}
PROTECT = {"masked": 15.0, "bfv+masked, clients": 250.0, "bfv+masked, authority": 420.0}
UPLOAD = {"masked": 4.0, "bfv+masked, clients": 4.0, "bfv+masked, authority": 7.8}
_NVFLARE_FIELDS = 12_000_000
_ENOUGH_FIELDS = 10_000_000


@dataclass(frozen=True)
class Line:
    """One figure, and its target where there is one: at most so much."""

    system: str
    figure: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met, in words; empty without a target."""
        return "" if self.target is None else "met" if self.value <= self.target else "NOT MET"

    def __str__(self) -> str:
        spread = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})"
        target = "" if self.target is None else f", target ≤ {self.target:g}"
        return (
            f"{self.verdict:>8}  {self.system}: {self.figure} {self.value:.4g} "
            f"{self.unit}{spread}{target}{'; ' if self.note else ''}{self.note}"
        )


def measure(shape: BlockShape, repeats: int) -> dict[str, Samples]:
    """All systems in turn, after a round of each to warm up."""
    fields = shape.pools * shape.width
    systems: dict[str, Any] = {FLOATS: Floats(shape)} | {
        name: SecureRounds(*kind, shape) for name, kind in PROTECTIONS.items()
    }
    if fields <= _NVFLARE_FIELDS:
        systems[NVFLARE] = NvFlare(shape)
    found = {name: Samples(fields) for name in systems}
    for repeat in range(repeats + 1):
        for name, system in systems.items():
            system.run(found[name] if repeat else Samples(fields))
    return found


def lines(shape: BlockShape, found: dict[str, Samples]) -> Iterator[Line]:
    """Every figure of these samples."""
    fields, floats = shape.pools * shape.width, found[FLOATS]
    for step in ("add", "receive"):
        yield _time(FLOATS, floats, step)
    for name in PROTECTIONS:
        yield from _protect(name, found[name])
        yield from _add(name, found[name], floats)
        yield from _open(name, found[name])
        yield from _bytes(name, found[name], fields)
        yield from _memory(name, found[name], shape)
        yield Line(name, "wrong integers", "", found[name].wrong, target=0)
    if NVFLARE in found:
        for step in ("protect", "add", "open"):
            yield _time(NVFLARE, found[NVFLARE], step)
        yield from _bytes(NVFLARE, found[NVFLARE], fields)
        yield Line(NVFLARE, "wrong integers", "", found[NVFLARE].wrong, note="it is approximate")


def _time(
    system: str,
    samples: Samples,
    step: str,
    figure: str = "",
    target: float | None = None,
    note: str = "",
) -> Line:
    values = samples.times[step]
    low, high = np.quantile(values, [0.2, 0.8])
    return Line(system, figure or step, "ms", median(values), float(low), float(high), target, note)


def _protect(name: str, samples: Samples) -> Iterator[Line]:
    sent = "integers to signed bytes, hash included"
    yield _time(name, samples, "protect", "protect and serialise", PROTECT[name], sent)
    if "vector" in samples.times:
        yield _time(
            name,
            samples,
            "vector",
            "protect and serialise, unsigned",
            PROTECT[name],
            "integers to masked bytes: what NVFlare's figure has",
        )
    yield _time(name, samples, "AES", "floor: AES-CTR keystream of all masks")
    if "SEAL" in samples.times:
        yield _time(name, samples, "SEAL", "floor: SEAL's encrypt", note="of zeros")
    yield _time(
        name, samples, "keys", "key agreement and shares", note="one client's, whatever the fields"
    )


def _add(name: str, samples: Samples, floats: Samples) -> Iterator[Line]:
    if name == "masked":
        for step, figure, note in (
            ("add", "server add, times plain addition", "the range check included"),
            (
                "receive",
                "server receives, times plain floats",
                "floats in the same signed envelope",
            ),
        ):
            yield Line(
                name,
                figure,
                "x",
                median(samples.times[step]) / median(floats.times[step]),
                target=1.2,
                note=note,
            )
        yield _time(name, samples, "add", "server add")
        yield _time(name, samples, "receive", "server receives", note="signature and hash included")
    else:
        yield _time(name, samples, "add", "server add", 60, "parse, check, add")
        yield _time(name, samples, "receive", "server receives", 60, "signature and hash included")


def _open(name: str, samples: Samples) -> Iterator[Line]:
    yield _time(name, samples, "open", target=400 + 4 * CLIENTS, note=f"{CLIENTS} live clients")
    yield _time(name, samples, "unmask", "open: unmask", note="the server's steps")
    yield _time(
        name,
        samples,
        "decrypt",
        "open: decrypt",
        note="the key holder's, checks and digest included",
    )


def _bytes(name: str, samples: Samples, fields: int) -> Iterator[Line]:
    yield Line(name, "upload", "B/field", samples.fixed["upload"] / fields, target=UPLOAD.get(name))
    if name in PROTECTIONS:
        yield Line(name, "keys and shares up", "B", samples.fixed["shares up"], note="one client's")
    yield Line(
        name,
        "down",
        "B/field",
        samples.fixed["down"] / fields,
        note="all messages to one client, mean" if name in PROTECTIONS else "",
    )


def _memory(name: str, samples: Samples, shape: BlockShape) -> Iterator[Line]:
    vector = samples.fixed["masked vector"]
    notes = {
        "client": "the vector has 8 bytes a slot; the integers are the caller's",
        "server": "while uploads are added; an upload is the transport's",
    }
    for (party, note), most in zip(notes.items(), peaks(*PROTECTIONS[name], shape), strict=True):
        yield Line(name, f"peak memory, {party}", "vectors", most / vector, target=3, note=note)


def run(shape: BlockShape, repeats: int, folder: Path) -> list[Line]:
    """Measure, print, append."""
    where, load, fields = (
        provenance(("tenseal", "zstandard", "cryptography")),
        os.getloadavg()[0],
        shape.pools * shape.width,
    )
    repeats = max(1, min(repeats, _ENOUGH_FIELDS // fields))
    print(
        f"P = {shape.width}, K = {shape.pools}, {repeats} repeats, load {load:.2f} at the start",
        flush=True,
    )
    found = []
    for line in lines(shape, measure(shape, repeats)):
        row: dict[str, object] = {
            "P": shape.width,
            "K": shape.pools,
            "clients": CLIENTS,
            "repeats": repeats,
            "load": round(load, 2),
        }
        row |= {
            "system": line.system,
            "figure": line.figure,
            "unit": line.unit,
            "value": f"{line.value:.5g}",
        }
        row |= {
            "y20": "" if line.low is None else f"{line.low:.4g}",
            "y80": "" if line.high is None else f"{line.high:.4g}",
        }
        row |= {
            "target": "" if line.target is None else f"{line.target:g}",
            "verdict": line.verdict,
            "note": line.note,
        }
        append_row(CSV, row, where, folder)
        print(line, flush=True)
        found.append(line)
    return found


def main() -> None:
    """Command line."""
    arguments = _parser().parse_args()
    widths, pools = arguments.parameters, arguments.pools
    if arguments.full:
        widths, pools = [1_000_000, 11_000_000], [1, 4, 8]
    for width in widths if arguments.repeats else ():
        for number in pools:
            found = run(BlockShape(number, width), arguments.repeats, arguments.results)
            print(
                ", ".join(
                    f"{sum(line.verdict == verdict for line in found)} {verdict}"
                    for verdict in ("met", "NOT MET")
                ),
                flush=True,
            )
    if arguments.page:
        print(write_page(arguments.results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parameters",
        type=int,
        nargs="+",
        default=[1_000_000],
        help="P, fields of a pool (default a million)",
    )
    parser.add_argument("--pools", type=int, nargs="+", default=[1], help="K (default 1)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="rounds of each system that count; fewer above ten million fields (default 5)",
    )
    parser.add_argument(
        "--full", action="store_true", help="1 and 11 million parameters, 1, 4 and 8 pools"
    )
    parser.add_argument("--page", action="store_true", help="write docs/secure-sum-speed.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV")
    return parser


if __name__ == "__main__":
    main()
