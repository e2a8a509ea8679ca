"""The processor at hand: what decides how its kernels are cut, and what a measurement on it must
name.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """What is known of it.

    Attributes:
        name: as the system calls it.
        count: processors that the system has.
        instructions: what torch's own loops use, `AVX2` or `AVX512`, with `AMX` where bfloat16
            matrices are multiplied in tiles.
        l1, l2, l3: a core's caches for data in KiB, the last shared; 0 where unknown.
    """

    name: str
    count: int
    instructions: str
    l1: int
    l2: int
    l3: int

    def __str__(self) -> str:
        caches = {"L1d": self.l1, "L2": self.l2, "L3": self.l3}
        known = [f"{level} {size} KiB" for level, size in caches.items() if size]
        count = f"{self.count} processor{'s' if self.count > 1 else ''}"
        return ", ".join([self.name, count, self.instructions, *known])


@cache
def processor() -> Processor:
    """This machine's."""
    sizes = dict(_sizes(_CACHES))
    count = os.cpu_count() or 1
    return Processor(_name(), count, _instructions(), *(sizes.get(level, 0) for level in (1, 2, 3)))


def _sizes(folder: Path) -> Iterator[tuple[int, int]]:
    """(level, KiB) of every cache that holds data."""
    for index in sorted(folder.glob("index*")):
        kind, level, size = (_read(index / name) for name in ("type", "level", "size"))
        if kind != "Instruction" and level and size.endswith("K"):
            yield int(level), int(size[:-1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _name() -> str:
    for line in _read(_CPUINFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _instructions() -> str:
    import torch

    found = torch.backends.cpu.get_cpu_capability()
    vectors = platform.machine() if found == "DEFAULT" else found
    return f"{vectors} with AMX" if has_amx() else vectors


def has_amx() -> bool:
    """Whether bfloat16 matrices are multiplied in tiles, which is what reduced precision runs
    on.
    """
    return "amx_bf16" in _read(_CPUINFO)
