"""Where the system has no room for what SEAL writes, the error is a typed one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from secure_fl.errors import FileError
from secure_fl.he.seal_bridge import _MemoryFile


def test_a_limit_on_files_is_named() -> None:
    def save(path: str) -> None:
        try:
            with Path(path).open("wb") as file:
                file.write(bytes(5000))
        except OSError:
            raise RuntimeError("I/O error") from None  # as SEAL says it

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    memory = _MemoryFile()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(FileError, match="memory for ciphertexts and keys: cannot be written"):
            memory.write_and_read(save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert memory.write_and_read(save) == bytes(5000)
