"""CIFAR-10 and CIFAR-100 in their binary distribution (the Python one is pickled and not read).

A record is one label byte (CIFAR-100: coarse, then fine) and 3,072 bytes, channel by channel, row
by row.
Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError
from secure_fl.files import open_file

_PIXELS = 3 * 32 * 32


def cifar10(source: SourceConfig) -> tuple[Dataset, Dataset]:
    """50,000 and 10,000 colour images of 32×32, ten classes."""
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _read(source, train, 1, 10), _read(source, ["test_batch.bin"], 1, 10)


def cifar100(source: SourceConfig) -> tuple[Dataset, Dataset]:
    """50,000 and 10,000 colour images of 32×32, a hundred fine classes."""
    return _read(source, ["train.bin"], 2, 100), _read(source, ["test.bin"], 2, 100)


def _read(source: SourceConfig, files: Sequence[str], label_bytes: int, classes: int) -> Dataset:
    remedy = (
        f"set data.sources.0.path to the unpacked folder of {source.name}'s *binary* distribution"
    )
    if source.path is None:
        raise DataError.of_source("needs a folder", None, remedy)
    records = np.concatenate(
        [_records(Path(source.path) / name, label_bytes + _PIXELS, remedy) for name in files]
    )
    x = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return Dataset.from_arrays(
        x, records[:, label_bytes - 1], classes=classes, layout="channels_first", name=source.name
    )


def _records(path: Path, size: int, remedy: str) -> np.ndarray:
    try:
        with open_file(path) as file:
            raw = np.fromfile(file, np.uint8)
    except OSError:
        raise DataError.of_source("no such file", path, remedy) from None
    if len(raw) == 0 or len(raw) % size:
        raise DataError.of_file(
            f"truncated: not a whole number of {size}-byte records", path, remedy
        )
    return raw.reshape(-1, size)
