"""Paths that a caller passes."""

from __future__ import annotations

import os
import os.path
from pathlib import Path

from secure_fl.errors import ConfigError


def at_home(path: str) -> str:
    """A path whose leading `~` is the home folder; the one place where settings and arguments that
    name files are read.

    Raises:
        ValueError: there is no such home.
    """
    if not path.startswith("~"):
        return path
    # of pathlib a missing home is a RuntimeError, and `~/` loses its form
    found = os.path.expanduser(path)  # noqa: PTH111
    if found.startswith("~"):
        raise ValueError("names a home folder that is not known: write the whole path, or set HOME")
    return found


def path_of(value: object, field: str) -> Path:
    """A path from text or anything that stands for one; a leading `~` is the home folder.

    Args:
        field: the argument, for the error.

    Raises:
        ConfigError: something else, an empty path, one with a null byte, or a home folder that is
            not known.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        found = "an empty path" if path == "" else type(value).__name__
        remedy = 'pass the path of a file or folder, such as "runs/mine"'
        raise ConfigError("is no path", field=field, value=found, remedy=remedy)
    try:
        return Path(at_home(path))
    except ValueError as error:
        problem, _, remedy = str(error).partition(": ")
        raise ConfigError(problem, field=field, value=path, remedy=remedy) from None
