"""Which tile runs where.

Chosen from the compiled binaries (no spills, shared memory within limits, fewest instructions per similarity), not from
timings: the benchmark has not run on a GPU yet. Keys: kernel, family, whether operands are half precision, and whether rows are held whole.
"""

from __future__ import annotations

from secure_fl_kernels.gpu.launch import Tile
from secure_fl_kernels.gpu.variants import Architecture

_DEFAULT = {
    ("sums", True, True): Tile(128, 64, 128, 8, 3),
    ("sums", True, False): Tile(128, 64, 64, 8, 3),
    ("sums", False, True): Tile(64, 32, 128, 4, 2),
    ("sums", False, False): Tile(64, 32, 64, 4, 2),
    ("gradient", True, True): Tile(128, 64, 128, 8, 3),
    ("gradient", True, False): Tile(64, 64, 128, 8, 2),
    ("gradient", False, True): Tile(64, 32, 128, 8, 2),
    ("gradient", False, False): Tile(64, 32, 128, 8, 2),
    ("uniformity", True, True): Tile(128, 64, 128, 8, 3),
    ("uniformity", True, False): Tile(64, 64, 128, 8, 2),
    ("uniformity", False, True): Tile(64, 32, 128, 8, 2),
    ("uniformity", False, False): Tile(64, 32, 128, 8, 2),
}
_SPECIAL: dict[tuple[str, Architecture, bool, bool], Tile] = {
    ("gradient", "sm80", True, True): Tile(64, 64, 128, 4, 3),
}


def tile_for(kernel: str, family: Architecture, half: bool, width: int) -> Tile:
    """The shipped tile; `depth` never exceeds the padded width."""
    whole = width <= 128
    tile = _SPECIAL.get((kernel, family, half, whole), _DEFAULT[kernel, half, whole])
    return tile._replace(depth=min(tile.depth, width))
