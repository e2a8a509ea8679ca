"""A user's own arrays in one `.npz` file: `x`, and labels, clients, splits and groups where there
are any.

`x` of four dimensions is images, of three series (or, with `kind = "image"`, grey images
`[N, H, W]`); of two, vectors, or with `kind = "series"` series `[N, L]` of one channel. Channels
that come last are moved to the front. Unsigned bytes are divided by 255. Object arrays, which would
need pickle, are refused, and so are archives that would grow beyond measure.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.columns import UNDECLARED, Declared
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError
from secure_fl.files import open_file

_USUAL = {"y": ("y", "label"), "client": ("client",), "split": ("split",), "group": ("group",)}
_SMALL, _GROWTH = 1 << 28, 200
"""An archive may grow by this factor, or any while so small: zeros shrink a thousandfold."""
_LARGEST = 1 << 36


def npz(source: SourceConfig, declared: Declared = UNDECLARED) -> Dataset:
    """The examples of `path`; a split is an array of the file.

    Raises:
        DataError: missing or damaged file, or arrays that are no examples.
    """
    path = Path(source.path or "")
    arrays, notes = read_arrays(path, source)
    data = dataset(arrays, source, declared, path.name)
    return replace(data, notes=(*notes, *data.notes))


def _taken(roles: dict[str, str], there: list[str]) -> tuple[str, ...]:
    """Which array was taken as what, and which was not read: those of other than usual names."""
    said = ", ".join(f"{name} as {setting(role)}" for role, name in roles.items() if role != "x")
    unused = ", ".join(name for name in there if name not in roles.values())
    rest = f"arrays not used: {unused} (name them with label, client, split or group)"
    return (*([f"taken: {said}"] if said else []), *([rest] if unused else []))


def setting(role: str) -> str:
    """What the configuration calls an array of a role."""
    return "label" if role == "y" else role


def dataset(
    arrays: dict[str, np.ndarray], source: SourceConfig, declared: Declared, name: str
) -> Dataset:
    """Arrays by role as a dataset; two axes are vectors, or with `kind` series of one channel."""
    x = arrays.pop("x")
    if x.ndim == 2 and source.kind == "series":
        x = x[:, None]
    beside: dict[str, Any] = arrays | declared.given
    return Dataset.from_arrays(x, **beside, kind=source.kind, layout=source.layout, name=name)


def read_arrays(
    path: Path, source: SourceConfig | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays `x`, `y`, `client`, `split`, `group` of a file, whichever it has, under the names
    that the source gives them; and that in words.

    Raises:
        DataError: missing or damaged file, no `x`, an array that was asked for is not there,
            pickled objects, or too much of it.
    """
    remedy = "write it with numpy.savez(path, x=…, y=…)"
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            names = names_of(archive.files, source, path)
            check_growth(file, path)
            arrays = {role: archive[name] for role, name in names.items()}
            notes = _taken(names, archive.files)
    except FileNotFoundError:
        raise DataError.of_source("no such file", path, "check the path") from None
    except DataError:
        raise
    except Exception as error:
        # Numpy and zipfile say nowhere what they raise for a file that is damaged. Its class alone:
        # numpy quotes bytes of the file, which may be an example's.
        problem = f"not a readable .npz: {type(error).__name__}"
        again = "write it again with numpy.savez(path, x=…, y=…), plain numeric arrays only"
        raise DataError.of_file(problem, path, again) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # an entry that is no .npy comes as its bytes
            raise DataError("is no array", field=name, value=str(path), remedy=remedy)
    return arrays, notes


def names_of(there: list[str], source: SourceConfig | None, path: Path) -> dict[str, str]:
    """Role -> the array that has it: as the source names it, else by its usual name.

    Raises:
        DataError: an array that was asked for is not there, or there is no `x`.
    """
    if "x" not in there:
        remedy = "write it with numpy.savez(path, x=…, y=…)"
        raise DataError("holds no array `x`", field=path.name, value=sorted(there), remedy=remedy)
    found = {"x": "x"}
    for role, usual in _USUAL.items():
        asked = None if source is None else getattr(source, setting(role))
        if asked is not None and asked not in there:
            problem = f"{path.name} holds no such array"
            remedy = f"one of {', '.join(sorted(there))}"
            raise DataError(
                problem, field=f"data.sources.{setting(role)}", value=asked, remedy=remedy
            )
        name = asked or next((name for name in usual if name in there), None)
        if name is not None:
            found[role] = name
    return found


def check_growth(file: BinaryIO, path: Path) -> None:
    """Refuse an archive whose arrays would be out of all proportion, or larger than this machine's
    memory, before one is expanded.

    Raises:
        DataError: it is such an archive, or an array's header promises something else than
            is there.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        whole = sum(member.file_size for member in members)
        packed = sum(member.compress_size for member in members)
        allowed = max(_SMALL, _GROWTH * max(1, packed))
        if whole > min(_LARGEST, _memory(), allowed):
            remedy = 'write it with numpy.savez, or give x as .npy (data.sources.name = "npy")'
            raise DataError.of_file("its arrays would be too large when expanded", path, remedy)
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as content:
                    _check_header(content, member.file_size, path)


def _check_header(content: Any, size: int, path: Path) -> None:
    """That an array's header promises as many bytes as its member holds."""
    try:
        first = np.lib.format.read_magic(content) == (1, 0)
        header = np.lib.format
        read = header.read_array_header_1_0 if first else header.read_array_header_2_0
        shape, _, dtype = read(content)
    except ValueError:
        return  # not an array; numpy says so when it is read
    if not dtype.hasobject and prod(shape) * dtype.itemsize > size:
        raise DataError.of_file(
            "an array's header promises more than there is", path, "write the file again"
        )


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return _LARGEST
