"""Arrays of their own files, memory-mapped: float32 values with channels first are read where they
lie, so they are in memory once, dealt out.

`path` is `x.npy` itself, with labels and the like in files beside it that the source names
(`label = "y.npy"`); or a folder that holds `x.npy`, `y.npy`, `client.npy`, …; or a folder or glob
of files, one a client.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.columns import UNDECLARED, Declared
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources.npz import dataset, names_of, setting
from secure_fl.errors import DataError
from secure_fl.files import is_file, open_file


def npy(source: SourceConfig, declared: Declared = UNDECLARED) -> Dataset:
    """The examples of one file, or of a folder that holds `x.npy`.

    Raises:
        DataError: a file is missing, damaged, or holds objects.
    """
    path, roles = Path(source.path or ""), ("y", "client", "split", "group")
    asked = {role: getattr(source, setting(role)) for role in roles}
    if path.is_dir():
        there = {file.stem: file for file in sorted(path.glob("*.npy"))}
        stems = {setting(role): name and name.removesuffix(".npy") for role, name in asked.items()}
        names = names_of(list(there), source.model_copy(update=stems), path)
        files = {role: there[name] for role, name in names.items()}
    else:
        files = {"x": path} | {role: path.parent / name for role, name in asked.items() if name}
    arrays = {
        role: mapped(file, f"data.sources.{'path' if role == 'x' else setting(role)}")
        for role, file in files.items()
    }
    return dataset(arrays, source, declared, path.name)


def mapped(path: Path, field: str) -> np.ndarray:
    """An array where it lies on disk; what is written to it stays in memory.

    Raises:
        DataError: missing, damaged, or objects.
    """
    if not is_file(path):
        raise DataError("no such file", field=field, value=str(path), remedy="check the path")
    try:
        with open_file(path) as file:
            np.lib.format.read_magic(file)
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # numpy says nowhere what it raises for a file that is damaged
        remedy = "write it again with numpy.save(path, x), a plain numeric array"
        raise DataError.of_file(
            f"not a readable .npy: {type(error).__name__}", path, remedy
        ) from None
    return array
