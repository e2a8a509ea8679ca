"""Sources of the user's own: a file, or a folder or glob of files named after clients."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.columns import Declared, owners_of
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.sources.images import images
from secure_fl.data.sources.npy import npy
from secure_fl.data.sources.npz import npz
from secure_fl.data.sources.tabular import tables
from secure_fl.errors import DataError

SourceName = Literal["npz", "npy", "csv", "parquet", "images"]
_SUFFIXES = {
    "npz": (".npz",),
    "npy": (".npy",),
    "csv": (".csv", ".tsv", ".txt"),
    "parquet": (".parquet", ".pq"),
}
_ONE: dict[str, Callable[[SourceConfig, Declared], Dataset]] = {"npz": npz, "npy": npy}


def read_files(source: SourceConfig, declared: Declared, image_size: int | None) -> Dataset:
    """The examples of a source of files.

    Raises:
        DataError: no path, nothing there, or what the readers refuse.
    """
    if source.path is None:
        what = "a folder of pictures"
        if source.name != "images":
            what = f"a {_SUFFIXES[source.name][0]} file, or a folder of them"
        raise DataError.of_source("needs a path", None, f"set data.sources.0.path to {what}")
    if source.name == "images":
        return images(source, declared, image_size)
    files = _files(source.name, source.path)
    if files is None and not Path(source.path).exists():
        remedy = "check the path"
        if not Path(source.path).is_absolute():
            remedy += f"; it was looked for in {Path.cwd()}, where the command runs"
        raise DataError.of_source("no such file", source.path, remedy)
    name = Path(source.path).name or source.name
    if source.name in ("csv", "parquet"):
        return tables(source, declared, {"": Path(source.path)} if files is None else files, name)
    read = _ONE[source.name]
    return read(source, declared) if files is None else _many(source, declared, read, files, name)


def kind_of(path: Path, field: str) -> SourceName:
    """What a file, by its suffix, or a folder, by what is in it, is as `data.sources.name` has it.

    Raises:
        DataError: nothing is there, or nothing that is read; `field` is where it was named.
    """
    suffixes = {suffix: name for name, known in _SUFFIXES.items() for suffix in known}
    if path.is_dir():
        inside = {suffixes.get(each.suffix.lower()) for each in path.iterdir() if each.is_file()}
        inside -= {None}
        found = inside.pop() if len(inside) == 1 else None if inside else "images"
    else:
        found = suffixes.get(path.suffix.lower())
    if found is None or not path.exists():
        problem = "of no kind that is read" if path.exists() else "no such file"
        remedy = (
            f"give a folder of pictures, a file ending in {', '.join(suffixes)}, or a "
            "folder of such files, all of one kind"
        )
        raise DataError(problem, field=field, value=str(path), remedy=remedy)
    return cast("SourceName", found)


def read_like(
    path: Path,
    data: DataConfig,
    declared: Declared,
    columns: Sequence[str],
    kind: Literal["image", "series", "vector"],
) -> Dataset:
    """A newcomer's examples, of the kind that the suffix says, read as a run's own were: columns
    and arrays are called as in the run's first source of that kind, `columns` are its table's, and
    `kind` is what its examples are.

    Raises:
        DataError: no such file, of no kind that is read, or what its reader refuses.
    """
    name = kind_of(path, "file")
    known = next((each for each in data.sources if each.name == name), SourceConfig(name=name))
    own: dict[str, object] = dict.fromkeys(("limit", "client", "split", "group"))
    own |= {"path": str(path)} | ({"kind": kind} if name in ("npz", "npy") else {})
    source = known.model_copy(update=own)
    try:
        return _one(source, declared, data.image_size, columns)
    except DataError as error:
        if known.label is None or not error.field.endswith(".label"):
            raise
        # A newcomer may have no labels.
        source = source.model_copy(update={"label": None})
        return _one(source, declared, data.image_size, columns)


def _one(
    source: SourceConfig, declared: Declared, image_size: int | None, columns: Sequence[str]
) -> Dataset:
    if source.name not in ("csv", "parquet"):
        return read_files(source, declared, image_size)
    path = Path(source.path or "")
    files = _files(source.name, str(path)) or {"": path}
    bare = source.model_copy(update={"features": None, "categories": None})
    return tables(bare, declared, files, path.name, columns)


def _files(kind: str, path: str) -> Mapping[str, Path] | None:
    """Client's name -> file; None for a path that is one set of examples."""
    if Path(path).exists() and not Path(path).is_dir():
        return None
    if Path(path).is_dir():
        if kind == "npy" and (Path(path) / "x.npy").exists():
            return None
        found = [file for file in Path(path).iterdir() if file.suffix.lower() in _SUFFIXES[kind]]
    elif glob.has_magic(path):
        # the pattern may be absolute
        found = [file for file in map(Path, glob.glob(path, recursive=True)) if file.is_file()]  # noqa: PTH207
    else:
        return None
    files = sorted(file for file in found if not file.name.startswith("."))
    if not files:
        remedy = (
            f"put {' or '.join(_SUFFIXES[kind])} files there, one a client, or correct the path"
        )
        raise DataError.of_source("holds no file of this kind", path, remedy)
    stems = [file.stem for file in files]
    return {
        file.stem if stems.count(file.stem) == 1 else str(file.with_suffix("")): file
        for file in files
    }


def _many(
    source: SourceConfig,
    declared: Declared,
    read: Callable[[SourceConfig, Declared], Dataset],
    files: Mapping[str, Path],
    name: str,
) -> Dataset:
    """One dataset of files of arrays; each is a client, unless all say who holds what."""
    parts = [
        replace(read(source.model_copy(update={"path": str(file)}), declared), name=file.name)
        for file in files.values()
    ]
    own = [part.client is not None for part in parts]
    if any(own) and not all(own):
        problem = "has no client array, and other files do"
        remedy = "give every file an array that says who holds what, or none"
        raise DataError(
            problem, field="data.sources.client", value=parts[own.index(False)].name, remedy=remedy
        )
    joined = join(parts, name)
    if all(own) or len(parts) == 1:
        return joined
    called, sizes = np.asarray(list(files)), [len(part) for part in parts]
    client, names = owners_of(np.repeat(called, sizes), sum(sizes), "client")
    return replace(joined, client=client, client_names=names)
