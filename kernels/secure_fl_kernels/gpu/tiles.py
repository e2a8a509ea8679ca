"""Which tile runs where.

What `secure-fl kernels tune` measured on the device goes first. The shipped tiles below were chosen
from the compiled binaries (no spills, also under Triton 3.8, shared memory within limits, fewest
instructions per similarity), not from timings: the benchmark has not run on a GPU yet. Their keys:
kernel, family, precision of the products (`half`, `tf32`, `exact`), and whether rows are
held whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels import tuning
from secure_fl_kernels.gpu.launch import Precision, Tile, architecture, precision
from secure_fl_kernels.gpu.variants import Architecture

_FEW_ROWS = 4096
INTERPRETER = "interpreter"
"""Stands for the device where kernels are interpreted."""

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


def tile_of(kernel: str, z: Tensor, rows: int) -> Tile:
    """The tile for padded unit rows `z`, `rows` a view, on their device: measured, or else the
    shipped one.
    """
    half, width = z.dtype != torch.float32, z.shape[1]
    found = tuning.choices(device_name(z.device)).get(
        class_of(kernel, precision(z), half, width, rows)
    )
    if found:
        tile = Tile(*found)
        return tile._replace(depth=min(tile.depth, width))
    return tile_for(kernel, architecture(z.device), precision(z), width, half)


def class_of(kernel: str, precision: Precision, half: bool, width: int, rows: int) -> str:
    """What tiles are measured for, such as `sums/half/128/many`."""
    kind = "half" if half else "tf32" if precision == "tf32" else "exact"
    wide, many = width if width <= 128 else "wide", "few" if rows < _FEW_ROWS else "many"
    return f"{kernel}/{kind}/{wide}/{many}"


def device_name(device: torch.device) -> str:
    """Whose tiles run."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else INTERPRETER
