"""A user's own arrays in one `.npz` file: `x`, optional `y`, optional `client`.

`x` of four dimensions is images, `[N, C, H, W]` or `[N, H, W, C]` with one or three channels; of three, series `[N, C, L]`
(or, with `kind = "image"`, grey images `[N, H, W]`); of two, one-channel series `[N, L]`. Unsigned bytes are divided by 255.
Object arrays, which would need pickle, are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.columns import UNDECLARED, Declared
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError
from secure_fl.files import open_file


def npz(source: SourceConfig, declared: Declared = UNDECLARED) -> tuple[Dataset, None]:
    """The examples of `path`; there is no official test split."""
    if source.path is None:
        raise DataError("needs a file", field="data.sources.path", value=None, remedy="set data.sources.0.path to an .npz file")
    arrays = read_arrays(Path(source.path))
    x = arrays["x"]
    if x.ndim == 2 and source.kind in ("auto", "series"):
        x = x[:, None]
    read = Dataset.from_arrays(
        x,
        arrays.get("y"),
        client=arrays.get("client"),
        classes=declared.classes,
        class_names=declared.names or None,
        kind=source.kind,
        layout=source.layout,
        name=Path(source.path).name,
    )
    return read, None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays `x`, `y`, `client` of a file, whichever it has.

    Raises:
        DataError: missing or damaged file, no `x`, or pickled objects inside.
    """
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y", "client") if name in archive.files}
    except FileNotFoundError:
        raise DataError("no such file", field="data.sources.path", value=str(path), remedy="check the path") from None
    except Exception as error:  # numpy and zipfile say nowhere what they raise for a file that is damaged
        remedy = "write it again with numpy.savez(path, x=…, y=…), plain numeric arrays only"
        # Its class alone: numpy quotes bytes of the file, which may be an example's.
        raise DataError(f"not a readable .npz: {type(error).__name__}", field=path.name, value=str(path), remedy=remedy) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # an entry that is no .npy comes as its bytes
            raise DataError("is no array", field=name, value=str(path), remedy="write it with numpy.savez(path, x=…, y=…)")
    if "x" not in arrays:
        raise DataError("holds no array `x`", field=path.name, value=sorted(arrays), remedy="write it with numpy.savez(path, x=…, y=…)")
    return arrays
