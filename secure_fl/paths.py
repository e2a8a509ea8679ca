"""Paths that a caller passes."""

from __future__ import annotations

import os
from pathlib import Path

from secure_fl.errors import ConfigError


def path_of(value: object, field: str) -> Path:
    """A path from text or anything that stands for one.

    Args:
        field: the argument, for the error.

    Raises:
        ConfigError: something else, an empty path, or one with a null byte.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        kind = "an empty path" if path == "" else type(value).__name__
        raise ConfigError("is no path", field=field, value=kind, remedy='pass the path of a file or folder, such as "runs/mine"')
    return Path(path)
