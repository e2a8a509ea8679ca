"""Secrets of a short run, in every form in which a file may hold them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FEWEST = 12
"""Bytes of the shortest form that is looked for: by chance it is in no file of a gigabyte."""
_NUMBERS = 6
"""Values that a form is made of."""


@dataclass
class Canaries:
    """What must be in no file.

    Attributes:
        forms: bytes by what they are: a form is a canary's name and its spelling.
    """

    forms: dict[bytes, tuple[str, str]] = field(default_factory=dict, repr=False)

    def numbers(self, name: str, values: NDArray[np.floating] | NDArray[np.integer]) -> None:
        """Several numbers in a row: as floats, as integers, as text."""
        flat = np.asarray(values).ravel()
        if len(flat) < _NUMBERS:
            return
        start = _liveliest(flat)
        row = flat[start : start + _NUMBERS]
        if len(np.unique(row)) < _NUMBERS - 1:
            return  # such a row may be anywhere
        if np.issubdtype(row.dtype, np.floating):
            kinds = {"float32": row.astype("<f4"), "float64": row.astype("<f8")}
            texts = [repr(float(value)) for value in row[:3]]
            texts = [text for text in texts if len(text) >= _FEWEST]
            self._texts(name, texts)
        else:
            kinds = {"int64": row.astype("<i8"), "int32": row.astype("<i4")}
            self._texts(name, [", ".join(map(str, row.tolist())), ",".join(map(str, row.tolist()))])
        for kind, found in kinds.items():
            self.bytes(name, found.tobytes(), kind)

    def pixels(self, name: str, values: NDArray[np.floating]) -> None:
        """An example's values, also as the bytes of a picture."""
        self.numbers(name, values)
        row = np.round(np.asarray(values).ravel()[: 2 * _FEWEST] * 255).astype(np.uint8)
        self.bytes(name, row.tobytes(), "bytes of a picture")

    def labels(self, name: str, values: NDArray[np.integer]) -> None:
        """All labels of a client, in their order."""
        flat = np.asarray(values).ravel()
        for kind in ("<i8", "<i4", "u1"):
            self.bytes(name, flat.astype(kind).tobytes(), kind)
        self._texts(name, [", ".join(map(str, flat.tolist())), ",".join(map(str, flat.tolist()))])

    def bytes(self, name: str, data: bytes, kind: str = "bytes") -> None:
        """Bytes as they are, in hex, and in base64 at each of its three places."""
        if len(data) < _FEWEST:
            return
        self.forms[data] = (name, kind)
        self.forms[data.hex().encode()] = (name, f"{kind} in hex")
        for before in range(3):
            text = base64.b64encode(bytes(before) + data)
            skip, end = -(-8 * before // 6), (8 * (before + len(data))) // 6
            self.forms[text[skip:end]] = (name, f"{kind} in base64")

    def _texts(self, name: str, texts: Iterable[str]) -> None:
        for text in texts:
            if len(text) >= _FEWEST:
                self.forms[text.encode()] = (name, "text")

    def found_in(self, folder: Path) -> Iterator[tuple[str, str, str]]:
        """(file, canary, spelling) of each that is in a file."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                for name, kind in self.found_in_file(path):
                    yield path.relative_to(folder).as_posix(), name, kind

    def found_in_file(self, path: Path) -> Iterator[tuple[str, str]]:
        """(canary, spelling) of each that is in this file."""
        data = path.read_bytes()
        yield from (told for form, told in self.forms.items() if form in data)


def _liveliest(flat: NDArray[np.generic]) -> int:
    """Where the values in a row are farthest from nothing."""
    sizes = np.abs(flat.astype(np.float64))
    windows = np.lib.stride_tricks.sliding_window_view(sizes, _NUMBERS)
    return int(windows.min(axis=1).argmax())
