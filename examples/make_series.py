"""A small .npz of labelled two-channel series from eight machines.

    python examples/make_series.py [PATH]

Three kinds of vibration; machines run at one of two speeds, which is what sets their data apart.
Use it with examples/configs/series.toml, or as a pattern for a file of your own: `x` [N, C, L], `y`
[N], `client` [N].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

MACHINES, EXAMPLES, LENGTH = 8, 120, 128


def series(kind: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """One example `[2, LENGTH]`: a hum, a hum with an overtone, or a hum that knocks."""
    time = np.arange(LENGTH) / LENGTH
    phase = rng.random() * 2 * np.pi
    hum = np.sin(2 * np.pi * 6 * speed * time + phase)
    extra = [
        0 * time,
        0.7 * np.sin(2 * np.pi * 18 * speed * time + phase),
        1.5 * (np.sin(2 * np.pi * 3 * speed * time + phase) > 0.9),
    ][kind]
    return np.stack([hum + extra, np.gradient(hum + extra) * 4]) + 0.3 * rng.standard_normal(
        (2, LENGTH)
    )


def main(path: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    client = np.repeat(np.arange(MACHINES), EXAMPLES)
    y = rng.integers(0, 3, MACHINES * EXAMPLES)
    x = np.stack(
        [
            series(kind, 1.0 if machine % 2 == 0 else 1.8, rng)
            for kind, machine in zip(y, client, strict=True)
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x.astype(np.float32), y=y, client=client)
    print(f"wrote {path}: {x.shape} from {MACHINES} machines")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/series.npz"))
