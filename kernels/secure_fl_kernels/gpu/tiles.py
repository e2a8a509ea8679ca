"""Which tile runs where.

Chosen from the compiled binaries (no spills, also under Triton 3.8, shared memory within limits,
fewest instructions per similarity), not from timings: the benchmark has not run on a GPU yet.
Keys: kernel, family, precision of the products (`half`, `tf32`, `exact`), and whether rows are
held whole.
"""

from __future__ import annotations

from secure_fl_kernels.gpu.launch import Precision, Tile
from secure_fl_kernels.gpu.variants import Architecture

_TILES: dict[tuple[str, str, bool], dict[Architecture | None, Tile]] = {
    ("sums", "half", True): {None: Tile(128, 64, 128, 8, 3), "gfx942": Tile(128, 64, 128, 4, 2)},
    ("sums", "half", False): {None: Tile(128, 64, 64, 8, 3), "gfx942": Tile(128, 64, 64, 4, 2)},
    ("sums", "tf32", True): {None: Tile(64, 32, 128, 4, 2)},
    ("sums", "tf32", False): {None: Tile(64, 32, 128, 4, 2)},
    ("sums", "exact", True): {None: Tile(64, 32, 64, 4, 2), "gfx942": Tile(64, 32, 64, 2, 2)},
    ("sums", "exact", False): {
        None: Tile(64, 32, 64, 4, 2),
        "sm100": Tile(64, 32, 32, 4, 2),
        "gfx942": Tile(64, 32, 64, 2, 2),
    },
    ("gradient", "half", True): {
        None: Tile(128, 64, 128, 8, 3),
        "sm80": Tile(64, 64, 64, 4, 2),
        "gfx942": Tile(128, 64, 128, 4, 1),
    },
    ("gradient", "half", False): {
        None: Tile(64, 64, 128, 4, 2),
        "sm80": Tile(128, 32, 64, 8, 2),
        "gfx942": Tile(128, 64, 128, 4, 2),
    },
    ("gradient", "tf32", True): {
        None: Tile(64, 64, 32, 4, 2),
        "sm90": Tile(128, 32, 64, 8, 2),
        "sm100": Tile(64, 64, 64, 4, 2),
    },
    ("gradient", "tf32", False): {None: Tile(128, 32, 64, 8, 2), "sm80": Tile(64, 64, 32, 4, 2)},
    ("gradient", "exact", True): {None: Tile(64, 32, 32, 4, 2), "gfx942": Tile(64, 32, 64, 2, 2)},
    ("gradient", "exact", False): {None: Tile(64, 32, 32, 4, 2), "gfx942": Tile(64, 32, 64, 2, 2)},
    ("uniformity", "half", True): {
        None: Tile(128, 64, 128, 8, 3),
        "gfx942": Tile(128, 64, 128, 4, 2),
    },
    ("uniformity", "half", False): {
        None: Tile(64, 64, 128, 4, 2),
        "sm80": Tile(128, 32, 64, 8, 2),
        "gfx942": Tile(128, 64, 128, 4, 2),
    },
    ("uniformity", "tf32", True): {None: Tile(64, 32, 128, 4, 2)},
    ("uniformity", "tf32", False): {None: Tile(128, 32, 64, 8, 2)},
    ("uniformity", "exact", True): {
        None: Tile(64, 32, 64, 4, 2),
        "sm80": Tile(64, 32, 32, 4, 2),
        "gfx942": Tile(64, 32, 64, 2, 2),
    },
    ("uniformity", "exact", False): {
        None: Tile(64, 32, 32, 4, 2),
        "sm100": Tile(64, 32, 64, 4, 2),
        "gfx942": Tile(64, 32, 64, 2, 2),
    },
}
"""None stands for every family not named. Rows are at least 16 for each warp (32 on AMD): with
fewer, warps repeat each other's work.
"""


def tile_for(
    kernel: str, family: Architecture, precision: Precision, width: int, half: bool = False
) -> Tile:
    """The shipped tile; `depth` never exceeds the padded width."""
    kind = "half" if half else "tf32" if precision == "tf32" else "exact"
    tiles = _TILES[kernel, kind, width <= 128]
    tile = tiles.get(family, tiles[None])
    return tile._replace(depth=min(tile.depth, width))
