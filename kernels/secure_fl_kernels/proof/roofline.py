"""Floors of the quadratic losses on four GPUs: a model, not measured.

    python -m secure_fl_kernels.proof.roofline > bench/results/roofline.csv

Each pass takes at least the largest of: its flop at the tensor cores' rate, its exponentials at the
special-function units', its traffic at L2's bandwidth (every block of rows reads all others through
L2 once) and at the memory's. Passes follow one another. Work is what the loss needs: similarities
that a kernel computes twice, as for rows wider than a tile, count against it. Nothing is added for
latency, launches or uneven ends, so a kernel at 50 % of this floor is a good one: published kernels
of the same structure (FlashAttention-2 in Triton, H100, D = 128) reach 48 % of the tensor peak.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "tf32", "tf32x3", "ieee"]
Resource = Literal["tensor", "exponential", "L2", "memory"]

ROWS_PER_PROGRAM = 128
"""Rows of a block: how many rows share one reading of all others. Assumption: the shipped tile."""


@dataclass(frozen=True)
class Device:
    """What bounds a GPU. Every figure is an assumption taken from outside; none was measured by
    this project.

    Attributes:
        tensor: sustained dense TFLOP/s by precision of the operands, with float32 sums.
        l2: TB/s.
        memory: TB/s.
        processors: multiprocessors.
        clock: GHz under load.
    """

    name: str
    tensor: Mapping[Precision, float]
    l2: float
    memory: float
    processors: int
    clock: float

    @property
    def exponentials(self) -> float:
        """Exp₂ per second: 16 per clock and multiprocessor, by NVIDIA's throughput table; AMD's
        quarter rate comes to the same.
        """
        return 16 * self.processors * self.clock * 1e9


def _nvidia(half: float) -> dict[Precision, float]:
    """Tf32 runs at half the rate of bf16, and float32 to its own accuracy is three tf32
    products.
    """
    return {"bf16": half, "tf32": half / 2, "tf32x3": half / 6}


DEVICES: tuple[Device, ...] = (
    # Data sheet: 312 and 156 TFLOP/s, 2.04 TB/s (80 GB), 108 SMs, 1.41 GHz. Assumed: 83 % of
    # tensor peak (what cuBLAS is reported to sustain), 80 % of memory; L2 of 4 TB/s is from
    # published microbenchmarks.
    Device("A100", _nvidia(260), 4.0, 1.6, 108, 1.41),
    # Data sheet: 989 and 495 TFLOP/s, 3.35 TB/s, 132 SMs. Assumed: 80 % of tensor peak, 90 % of
    # memory, 1.7 GHz under load (1.83 boost), L2 of 5.5 TB/s from published microbenchmarks.
    Device("H100", _nvidia(800), 5.5, 3.0, 132, 1.70),
    # Data sheet: 2,250 and 1,125 TFLOP/s, 8 TB/s, 148 SMs. Assumed: 75 % of tensor peak, 88 % of
    # memory; L2 of 10 TB/s is a guess that scales the H100's with its size.
    Device("B200", _nvidia(1700), 10.0, 7.0, 148, 1.85),
    # Data sheet: 1,307 TFLOP/s and 163 for float32 itself, which is what the kernels ask for there;
    # 5.3 TB/s, 304 CUs, 2.1 GHz. Assumed: 50 % of tensor peak, 75 % of memory, L2 of 8 TB/s; all
    # three are guesses from published GEMM and bandwidth figures.
    Device("MI300X", {"bf16": 650, "ieee": 82}, 8.0, 4.0, 304, 2.10),
)


@dataclass(frozen=True)
class Pass:
    """One kernel's work: flop, exponentials, bytes through L2, bytes to and from memory."""

    flop: float
    exps: float
    l2: float
    memory: float

    def floor(self, device: Device, precision: Precision) -> tuple[Resource, float]:
        """The resource that bounds it, and seconds."""
        seconds: dict[Resource, float] = {
            "tensor": self.flop / (device.tensor[precision] * 1e12),
            "exponential": self.exps / device.exponentials,
            "L2": self.l2 / (device.l2 * 1e12),
            "memory": self.memory / (device.memory * 1e12),
        }
        bound = max(seconds, key=lambda resource: seconds[resource])
        return bound, seconds[bound]


def passes(loss: str, rows: int, width: int, precision: Precision) -> dict[str, Pass]:
    """Passes of one loss, forward and backward.

    Args:
        loss: `ntxent`, two passes that each compute all similarities (2N²D flop and 4N²D);
            `uniformity`, one pass that gives loss and gradient together (4N²D).
        rows: of the matrix of similarities; NT-Xent's are both views'.
    """
    size = 2 if precision == "bf16" else 4
    pairs, held = float(rows) * rows, float(rows) * width * size
    through = -(-rows // ROWS_PER_PROGRAM) * held
    gradient = held + 4.0 * rows
    if loss == "ntxent":
        forward = Pass(2 * pairs * width, pairs, through, held + 8.0 * rows)
        return {
            "forward": forward,
            "backward": Pass(4 * pairs * width, pairs, through, held + gradient + 8.0 * rows),
        }
    if loss == "uniformity":
        return {"forward and backward": Pass(4 * pairs * width, pairs, through, held + gradient)}
    raise ValueError(f"{loss!r} is not 'ntxent' or 'uniformity'")


@dataclass(frozen=True)
class Row:
    """One line of the table: a pass's floor, and how much of the tensor peak it would be."""

    loss: str
    part: str
    device: str
    precision: Precision
    rows: int
    width: int
    milliseconds: float
    bound: Resource
    tflops: float


COLUMNS = (
    "loss",
    "part",
    "device",
    "precision",
    "rows",
    "width",
    "floor_ms",
    "bound",
    "tflops_at_floor",
    "basis",
)
BASIS = "model, not measured"


def table(
    rows: Iterable[int] = (8192, 32768, 65536),
    widths: Iterable[int] = (128, 256, 512),
    devices: Iterable[Device] = DEVICES,
) -> Iterator[Row]:
    """Floors of every loss, part, device, precision, number of rows and width."""
    widths, devices = tuple(widths), tuple(devices)
    for loss in ("ntxent", "uniformity"):
        for count in rows:
            for width in widths:
                for device in devices:
                    for precision in device.tensor:
                        for part, work in passes(loss, count, width, precision).items():
                            bound, seconds = work.floor(device, precision)
                            yield Row(
                                loss,
                                part,
                                device.name,
                                precision,
                                count,
                                width,
                                seconds * 1e3,
                                bound,
                                work.flop / seconds / 1e12,
                            )


def main() -> None:
    """Write the table to standard output as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table():
        head = (row.loss, row.part, row.device, row.precision, row.rows, row.width)
        writer.writerow((*head, f"{row.milliseconds:.4f}", row.bound, f"{row.tflops:.0f}", BASIS))


if __name__ == "__main__":
    main()
