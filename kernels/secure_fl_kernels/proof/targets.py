"""The GPUs that kernels are compiled for: what a binary may use there, and how fast a
multiprocessor is at what.

Rates are per clock and multiprocessor (NVIDIA: SM, AMD: compute unit), from the vendors' data
sheets: peak dense rate divided by multiprocessors and boost clock, which gives powers of two. They
are assumptions of the static model, never measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triton.backends.compiler import GPUTarget

from secure_fl_kernels.gpu.variants import ARCHITECTURES, Architecture

KIB = 1024


@dataclass(frozen=True)
class Target:
    """One GPU architecture.

    Attributes:
        tiles: the family whose shipped variants run here.
        shared: bytes of shared memory that one block may ask for.
        columns: of tensor memory that one block may ask for; 0 where there is none.
        registers: that one thread may have.
        matrix: how the instruction starts that products are expected to run on.
        units: precisions of operands that matrix units take.
        flop: dense flop by precision of the operands; a precision that is missing runs as `fp32`.
        exponentials: exp₂ on the special-function units.
        slots: instructions of one thread that are issued.
        processor: as `nvdisasm` calls it; empty on AMD, whose back end prints its assembly itself.
    """

    name: str
    gpu: GPUTarget
    tiles: Architecture
    shared: int
    columns: int
    registers: int
    matrix: str
    units: frozenset[str]
    flop: Mapping[str, int] = field(hash=False)
    exponentials: int = 16
    slots: int = 128
    processor: str = ""


def _nvidia(
    capability: int,
    tiles: Architecture,
    shared: int,
    matrix: str,
    half: int,
    single: int,
    columns: int = 0,
) -> Target:
    """`half` is the rate of bf16 and fp16 with fp32 sums; tf32 runs at half of it, fp32 on the
    ordinary units at `single`.
    """
    name = f"sm{capability}"
    suffix = "a" if capability >= 90 else ""
    rates = {"bf16": half, "fp16": half, "tf32": half // 2, "fp32": single}
    gpu = GPUTarget("cuda", capability, 32)
    units = frozenset({"bf16", "fp16", "tf32"})
    return Target(
        name,
        gpu,
        tiles,
        shared * KIB,
        columns,
        255,
        matrix,
        units,
        rates,
        processor=f"SM{capability}{suffix}",
    )


def _amd(
    name: str,
    shared: int,
    matrix: str,
    half: int,
    single: int,
    tf32: int | None = None,
    lanes: int = 64,
    registers: int = 512,
) -> Target:
    """A wave of 64 lanes has 512 registers a lane, half of them for sums; 4 SIMDs issue 16 lanes
    each, exponentials at a quarter.
    """
    rates = {"bf16": half, "fp16": half, "fp32": single} | ({"tf32": tf32} if tf32 else {})
    units = frozenset({"bf16", "fp16", "fp32"} | ({"tf32"} if tf32 else set()))
    units -= {"fp32"} if matrix == "v_wmma" else set()
    return Target(
        name,
        GPUTarget("hip", name, lanes),
        "gfx942",
        shared * KIB,
        0,
        registers,
        matrix,
        units,
        rates,
        slots=64,
    )


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        _nvidia(80, "sm80", 163, "HMMA", 2048, 128),  # A100: 312 TFLOP/s bf16, 108 SMs, 1.41 GHz
        _nvidia(86, "sm80", 99, "HMMA", 1024, 256),  # A10: 125 TFLOP/s, 72 SMs, 1.695 GHz
        _nvidia(89, "sm80", 99, "HMMA", 1024, 256),  # L40S: 362 TFLOP/s, 142 SMs, 2.52 GHz
        _nvidia(90, "sm90", 227, "HGMMA", 4096, 256),  # H100 SXM: 989 TFLOP/s, 132 SMs, 1.83 GHz
        # B200: 2,250 TFLOP/s, 148 SMs, 1.85 GHz
        _nvidia(100, "sm100", 227, "UTCHMMA", 8192, 256, columns=512),
        # RTX PRO 6000: 504 TFLOP/s, 188 SMs, 2.6 GHz; has no tensor memory
        _nvidia(120, "sm80", 99, "HMMA", 1024, 256),
        # MI250X: 383 TFLOP/s bf16, 96 fp32, 220 CUs, 1.7 GHz
        _amd("gfx90a", 64, "v_mfma", 1024, 256),
        # MI300X: 1,307 TFLOP/s bf16, 654 tf32, 163 fp32, 304 CUs, 2.1 GHz
        _amd("gfx942", 64, "v_mfma", 2048, 256, tf32=1024),
        # MI355X: 2,500 TFLOP/s bf16, 157 fp32, 256 CUs, 2.4 GHz
        _amd("gfx950", 160, "v_mfma", 4096, 256),
        # RX 7900 XTX: 123 TFLOP/s bf16, 96 CUs, 2.5 GHz; fp32 has no wmma
        _amd("gfx1100", 64, "v_wmma", 512, 256, lanes=32, registers=256),
    )
}

FAMILIES: tuple[Target, ...] = tuple(TARGETS[name] for name in ARCHITECTURES)
"""What is compiled unless told otherwise: one target for each family that has tiles of its own."""


def target_of(name: str) -> Target:
    """The target called `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in TARGETS:
        raise ValueError(f"{name!r} is no target; there are {', '.join(TARGETS)}")
    return TARGETS[name]
