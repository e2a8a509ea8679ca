"""What `secure-fl kernels tune` tries on the processor: edges of tiles about the size of a core's
second cache, with either exponential.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from secure_fl_kernels import tuning
from secure_fl_kernels.cpu import ntxent, tiles
from secure_fl_kernels.cpu.tiles import Cut
from secure_fl_kernels.processor import Processor, processor

_ROWS = {"many": 4096, "few": 1024}
_WIDTH, _TEMPERATURE = 128, 0.2
_EDGES = (128, 192, 256, 320, 384, 512, 640, 768, 1024)
_SHARES = (0.2, 2.0)
"""Of the second cache that a tile may take; below, Python around small products costs more."""
_USUAL_L2 = 1024


def classes() -> list[tuning.Class]:
    """Both classes of rows with their cuts, the shipped one first."""
    return [
        tuning.Class(
            f"tiles/{name}", list(dict.fromkeys([tiles.shipped(name), *cuts(processor())]))
        )
        for name in _ROWS
    ]


def cuts(here: Processor) -> Iterator[Cut]:
    """Whatever may be fastest with these caches."""
    kib = here.l2 or _USUAL_L2
    for edge in _EDGES:
        if _SHARES[0] * kib <= 4 * edge**2 / 1024 <= _SHARES[1] * kib:
            yield from (Cut(edge, base) for base in (0, 2))


def seconds(name: str, choice: tuning.Choice) -> float:
    """Seconds of NT-Xent, forward and backward, cut that way; on the threads that torch has."""
    rows = _ROWS[name.partition("/")[2]]
    x = torch.randn(rows, _WIDTH, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    _, scaled, inverse, statistics, own, _ = ntxent.forward(x, _TEMPERATURE, None, Cut(*choice))
    ntxent.backward(
        x.new_ones(()), None, scaled, inverse, statistics, own, None, _TEMPERATURE, _WIDTH, x.dtype,
        Cut(*choice),
    )  # fmt: skip
    return time.perf_counter() - began
