"""Runs that are over or were cut short, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import tiny_config

from secure_fl import (
    Dataset,
    Federation,
    Result,
)

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 5))
SICK = np.array(["sick", "well"])[np.arange(ROWS) % 2]


def federation(**tables: Any) -> Federation:
    base: dict[str, Any] = {
        "partition": {"kind": "natural"},
        "model": {"encoder": "mlp", "features": 16},
        "data": {"scale": "none"},
    }
    others = {
        name: tables.pop(name) for name in ("encoder", "augment", "callbacks") if name in tables
    }
    data = Dataset.from_arrays(X, SICK, client=[f"site {i % 4}" for i in range(ROWS)])
    return Federation(tiny_config(**{**base, **tables}), data=data, **others)


@dataclass(frozen=True)
class Runs:
    """A folder with `done`, `half` and `bare` (a run without pools), `full` (of something else) and
    `file`; and the results of two of them.
    """

    folder: Path
    done: Result
    bare: Result

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def __str__(self) -> str:
        return str(self.folder)

    def npz(self, **content: Any) -> Path:
        np.savez(self.folder / "new.npz", **content)
        return self.folder / "new.npz"
