"""Which tile runs where.

Chosen from the compiled binaries (no spills, shared memory within limits, fewest instructions per similarity), not from
timings: the benchmark has not run on a GPU yet. Keys: kernel, family, precision of the products (`half`, `tf32`, `exact`), and
whether rows are held whole.
"""

from __future__ import annotations

from secure_fl_kernels.gpu.launch import Precision, Tile
from secure_fl_kernels.gpu.variants import Architecture

_DEFAULT = {
    ("sums", "half", True): Tile(128, 64, 128, 8, 3),
    ("sums", "half", False): Tile(128, 64, 64, 8, 3),
    ("sums", "tf32", True): Tile(64, 32, 128, 8, 2),
    ("sums", "tf32", False): Tile(64, 32, 64, 8, 2),
    ("sums", "exact", True): Tile(64, 32, 128, 8, 2),
    ("sums", "exact", False): Tile(64, 32, 64, 8, 2),
    ("gradient", "half", True): Tile(128, 64, 128, 8, 3),
    ("gradient", "half", False): Tile(64, 64, 128, 8, 2),
    ("gradient", "tf32", True): Tile(64, 32, 128, 8, 2),
    ("gradient", "tf32", False): Tile(64, 32, 128, 8, 2),
    ("gradient", "exact", True): Tile(32, 32, 128, 8, 2),
    ("gradient", "exact", False): Tile(32, 32, 128, 8, 2),
    ("uniformity", "half", True): Tile(128, 64, 128, 8, 3),
    ("uniformity", "half", False): Tile(64, 64, 128, 8, 2),
    ("uniformity", "tf32", True): Tile(64, 32, 128, 8, 2),
    ("uniformity", "tf32", False): Tile(64, 32, 128, 8, 2),
    ("uniformity", "exact", True): Tile(32, 32, 128, 8, 2),
    ("uniformity", "exact", False): Tile(32, 32, 128, 8, 2),
}
_SPECIAL: dict[tuple[str, Architecture, str, bool], Tile] = {
    ("gradient", "sm80", "half", True): Tile(64, 64, 128, 4, 3),
}


def tile_for(kernel: str, family: Architecture, precision: Precision, width: int, half: bool = False) -> Tile:
    """The shipped tile; `depth` never exceeds the padded width."""
    whole = width <= 128
    kind = "half" if half else "tf32" if precision == "tf32" else "exact"
    tile = _SPECIAL.get((kernel, family, kind, whole), _DEFAULT[kernel, kind, whole])
    return tile._replace(depth=min(tile.depth, width))
