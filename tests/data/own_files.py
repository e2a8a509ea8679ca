"""Files of a user's own, written and read in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.sources import load_sources
from secure_fl.errors import DataError


def read(name: str, path: Path | str, data: dict[str, Any] | None = None, **more: Any) -> Dataset:
    source = SourceConfig(name=name, path=str(path), **more)
    ((train, test),) = load_sources(DataConfig(sources=(source,), **(data or {})), 0)
    assert test is None
    return train


def refused(
    name: str, path: Path | str, data: dict[str, Any] | None = None, **more: Any
) -> DataError:
    with pytest.raises(DataError) as caught:
        read(name, path, data, **more)
    assert caught.value.remedy
    return caught.value


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (9, 8), value: int = 100) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
