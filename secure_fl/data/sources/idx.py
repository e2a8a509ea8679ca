"""MNIST and Fashion-MNIST in their idx files, plain or gzipped.

Format: two zero bytes, a type byte (8 is unsigned byte), the number of dimensions, each dimension
as a big-endian 32-bit integer, then the values. Source: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError
from secure_fl.files import open_file

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_UNSIGNED_BYTE = 8
_LARGEST = 1 << 30
"""Bytes of an idx file's values at most; MNIST has 47 million."""


def mnist(source: SourceConfig) -> tuple[Dataset, Dataset]:
    """60,000 and 10,000 grey digits of 28×28 from the folder `path`."""
    remedy = (
        "set data.sources.0.path to the folder that holds MNIST's four idx files, "
        "train-images-idx3-ubyte(.gz) and so on"
    )
    if source.path is None:
        raise DataError.of_source("needs a folder", None, remedy)
    return _both(source, Path(source.path), remedy)


def fashion_mnist(source: SourceConfig) -> tuple[Dataset, Dataset]:
    """60,000 and 10,000 grey garments of 28×28, from `path` or where Debian's package puts them."""
    folder = Path(source.path) if source.path is not None else DEBIAN_FASHION
    remedy = (
        "`apt-get install dataset-fashion-mnist`, or set data.sources.0.path to a folder with its "
        "four idx files"
    )
    return _both(source, folder, remedy)


def read_idx(path: Path, remedy: str = "fetch the file again") -> np.ndarray:
    """One idx file as a uint8 array.

    Raises:
        DataError: missing, truncated, too long, or not an idx file of unsigned bytes.
    """
    head, shape, body = _contents(path, remedy)
    whole = len(head) >= 4 and len(head) >= 4 + 4 * head[3]
    held, promised, problem = len(body), math.prod(shape), ""
    if not whole or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE:
        problem = "not an idx file of unsigned bytes"
    elif held < promised:
        problem = "truncated: its header promises more values"
    elif held > promised:
        problem = "its header promises fewer values"
    if problem:
        raise DataError.of_file(problem, path, remedy)
    try:
        return np.frombuffer(body, np.uint8).reshape(shape)
    except ValueError:
        # more dimensions than an array may have, or empty ones beyond what can be addressed
        raise DataError.of_file("its header describes no array", path, remedy) from None


def _contents(path: Path, remedy: str) -> tuple[bytes, tuple[int, ...], bytes]:
    """The header of a file, the shape that it promises, and one byte more than that at most."""
    try:
        with open_file(path) as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            head = stream.read(4)
            head += stream.read(4 * head[3]) if len(head) == 4 else b""
            dimensions = max(0, (len(head) - 4) // 4)
            shape = struct.unpack(f">{dimensions}I", head[4 : 4 + 4 * dimensions])
            # No more than the header promises is expanded, nor more than any such set holds.
            return head, shape, stream.read(min(math.prod(shape), _LARGEST) + 1)
    except FileNotFoundError:
        raise DataError.of_source("no such file", path, remedy) from None
    except (EOFError, OSError, zlib.error) as error:
        # Its class alone: gzip quotes bytes of the file.
        problem = f"truncated or damaged archive: {type(error).__name__}"
        raise DataError.of_file(problem, path, remedy) from None


def _both(source: SourceConfig, folder: Path, remedy: str) -> tuple[Dataset, Dataset]:
    return _split(source.name, folder, "train", remedy), _split(source.name, folder, "t10k", remedy)


def _split(name: str, folder: Path, split: str, remedy: str) -> Dataset:
    images = read_idx(_find(folder, f"{split}-images-idx3-ubyte"), remedy)
    labels = read_idx(_find(folder, f"{split}-labels-idx1-ubyte"), remedy)
    if images.ndim != 3:
        problem = "not a stack of images"
        raise DataError(
            problem, field=f"{split}-images", value=f"{images.ndim} axes", remedy=remedy
        )
    return Dataset.from_arrays(
        images[:, None], labels, classes=10, layout="channels_first", name=name
    )


def _find(folder: Path, stem: str) -> Path:
    plain = folder / stem
    return plain if plain.exists() else folder / f"{stem}.gz"
