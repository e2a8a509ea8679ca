"""A folder of pictures: `label/file` or `client/label/file`, or files alone without labels; below
`train/` and `test/` where there are splits.

Read by Pillow, turned as their camera says, as bytes. Where some are grey and some in colour all
become colour.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.columns import SPLIT_NAMES, UNDECLARED, Declared
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError, need
from secure_fl.files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4, "I;16": 1}
_DEEP = 65535
_LEVELS = {0: (), 1: ("label",), 2: ("client", "label")}
"""What the folders above a picture say, by how many there are."""


def images(
    source: SourceConfig, declared: Declared = UNDECLARED, image_size: int | None = None
) -> Dataset:
    """The pictures below `path`, in the order of their names, brought to `image_size` pixels a
    side.

    Raises:
        DependencyError: Pillow is missing.
        DataError: no folder, no picture, a picture that cannot be read, pictures of several sizes
            where none is given, or folders of several depths.
    """
    folder = Path(source.path or "")
    files = _pictures(folder, source.path)
    beside = _by_folders(files, folder)
    return Dataset.from_arrays(
        _pixels(files, folder, image_size),
        **beside,
        **declared.given,
        kind="image",
        layout="channels_first",
        name=folder.name or "images",
    )


def _pictures(folder: Path, path: str | None) -> list[Path]:
    """Files below a folder that are called like pictures, in the order of their names."""
    if not folder.is_dir():
        remedy = "set data.sources.path to a folder of label/file or client/label/file"
        raise DataError.of_source("no such folder", path, remedy)
    found = (file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = sorted(file for file in found if not _hidden(file.relative_to(folder)))
    if not files:
        remedy = f"put pictures there, of the kinds {' '.join(_SUFFIXES)}"
        raise DataError.of_source("holds no picture", folder, remedy)
    return files


def _by_folders(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """What the folders above each picture say, as `from_arrays` takes it."""
    above = [file.relative_to(folder).parts[:-1] for file in files]
    given: dict[str, Any] = {}
    if all(parts and parts[0].lower() in SPLIT_NAMES for parts in above):
        given["split"] = [parts[0] for parts in above]
        above = [parts[1:] for parts in above]
    depths = {len(parts) for parts in above}
    if len(depths) > 1 or max(depths) not in _LEVELS:
        problem = "pictures lie at several depths, or too deep"
        remedy = "put every picture as label/file, or every picture as client/label/file"
        raise DataError.of_source(problem, folder, remedy)
    for level, role in enumerate(_LEVELS[max(depths)]):
        given["y" if role == "label" else role] = [parts[level] for parts in above]
    return given


def _pixels(files: Sequence[Path], folder: Path, image_size: int | None) -> np.ndarray:
    """`[N, C, H, W]`, bytes, or float32 within [0, 1] for pictures of two bytes a value."""
    modes, sizes = list[str](), list[tuple[int, int]]()
    for file in files:
        picture = _opened(file, folder)
        modes.append(picture.mode)
        sizes.append(picture.size)
        if image_size is None and picture.size != sizes[0]:
            remedy = "set data.image_size to the pixels a side that all are brought to"
            raise DataError(
                "pictures differ in size", field="data.image_size", value=None, remedy=remedy
            )
    mode = modes[0] if len(set(modes)) == 1 else "RGB"
    width, height = (image_size, image_size) if image_size is not None else sizes[0]
    x = np.empty(
        (len(files), _CHANNELS[mode], height, width), np.float32 if mode == "I;16" else np.uint8
    )
    for row, file in enumerate(files):
        x[row] = _values(_opened(file, folder), mode, image_size)
    return x


def _values(picture: Image, mode: str, image_size: int | None) -> np.ndarray:
    """One picture `[C, H, W]`."""
    deep = picture.mode == "I;16"
    if deep:
        from PIL import Image as Pictures

        picture = Pictures.fromarray(
            np.asarray(picture, np.float32) / _DEEP * (1 if mode == "I;16" else 255), "F"
        )
    if mode != "I;16" and picture.mode != mode:
        picture = picture.convert("L").convert(mode) if deep else picture.convert(mode)
    if image_size is not None and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), resample=2)  # bilinear
    values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _opened(file: Path, folder: Path) -> Image:
    """A picture as its camera held it, in one of the modes that are told apart.

    Raises:
        DataError: it is no picture, is damaged, or is out of all proportion.
    """
    need("PIL", "images", "data.sources.name", "images")
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_file(file) as content, Image.open(content) as picture:
                turned = ImageOps.exif_transpose(picture)
                turned.load()
                return turned if turned.mode in _CHANNELS else turned.convert(_plain(turned))
    except Exception as error:  # Pillow says nowhere what it raises for a file that is damaged
        problem = f"not a readable picture: {type(error).__name__}"
        remedy = "take it out of the folder, or save it again"
        raise DataError.of_source(problem, file.relative_to(folder), remedy) from None


def _plain(picture: Image) -> str:
    """The mode that keeps what a picture shows."""
    if picture.mode in ("1", "LA", "La"):
        return "L"
    if picture.mode.startswith("I"):
        return "I;16"
    return "RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB"


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
