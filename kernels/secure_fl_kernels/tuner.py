"""Measures tiles on a device and keeps them: what `secure-fl kernels tune` does."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from secure_fl_kernels import tuning
from secure_fl_kernels.processor import processor


@dataclass(frozen=True)
class Bench:
    """What can be measured on one device."""

    device: str
    classes: list[tuning.Class]
    seconds: tuning.Seconds


@dataclass(frozen=True)
class Searched:
    """What came of it.

    Attributes:
        kept: classes measured before this time, in the same file.
        left: classes that the minutes were too few for.
    """

    path: Path
    kept: int
    left: list[str]


def bench_of(device: torch.device) -> Bench:
    """The device's classes and how to time them; on the processor that of the tiles."""
    if device.type == "cpu":
        from secure_fl_kernels.cpu import candidates as cpu

        return Bench(str(processor()), cpu.classes(), cpu.seconds)
    from secure_fl_kernels.gpu import candidates as gpu
    from secure_fl_kernels.gpu.tiles import device_name

    found = gpu.shapes(device)
    return Bench(device_name(device), gpu.classes(found), gpu.Timer(found))


def tune(
    bench: Bench,
    minutes: float,
    tell: Callable[[str, tuning.Choice, float], None],
    again: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Searched:
    """Measure what the device's file does not hold yet, and keep each class as it is found.

    Stopping it loses the class that is being measured and nothing else.

    Args:
        tell: told of each class, its choice, and its seconds over those of the shipped one.
        again: measure all anew; until then each class keeps what was chosen before.

    Raises:
        ValueError: `SECURE_FL_TILES` says that no file is read.
    """
    place = tuning.folder()
    if place is None:
        raise ValueError(f"{tuning.VARIABLE}={tuning.SHIPPED}: no measured tile would be read")
    path = tuning.path_of(bench.device, place)
    found = _known(path, bench.device)
    classes = [each for each in bench.classes if again or each.name not in found]
    kept = len(bench.classes) - len(classes)

    def keep(name: str, choice: tuning.Choice, ratio: float) -> None:
        found[name] = choice
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        here = tuning.kernels_digest(), tuning.software(), date
        tuning.write(path, tuning.Tuned(bench.device, *here, dict(found)))
        tell(name, choice, ratio)

    left = tuning.search(classes, bench.seconds, keep, minutes, clock)
    return Searched(path, kept, left)


def _known(path: Path, device: str) -> dict[str, tuning.Choice]:
    """What the file holds, nothing if it is stale."""
    try:
        return dict(tuning.read(path, device).choices) if path.exists() else {}
    except tuning.StaleTilesError:
        return {}
