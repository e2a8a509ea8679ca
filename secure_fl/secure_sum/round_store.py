"""What a client remembers of rounds it has begun, so that no second vector is ever masked, noised or encrypted for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.round_messages import RoundReason, RoundRefusedError


class UploadStore(Protocol):
    """Outlives the client's process. Contents are protected already; they are no secret."""

    def begin(self, round_number: int) -> None:
        """Record, before anything is sent, that a round has begun; refuse one that has, or an earlier one."""

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        """Record an upload's bytes before they are sent."""

    def kept(self, round_number: int) -> bytes | memoryview | None:
        """The upload of that round, if there is one."""


class MemoryStore:
    """Keeps the last round in memory: for simulations in one process, where nothing survives a kill."""

    def __init__(self) -> None:
        self._last = -1
        self._upload: bytes | memoryview = b""

    def begin(self, round_number: int) -> None:
        refuse_earlier(self._last, round_number)
        self._last, self._upload = round_number, b""

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        self._upload = upload

    def kept(self, round_number: int) -> bytes | memoryview | None:
        return self._upload or None if round_number == self._last else None

    def release(self) -> None:
        """Forget the bytes, not the round: what a simulation does once the server has them."""
        self._upload = b""


class FolderStore:
    """Keeps the last round in a folder of its own: `round`, its number, and `upload`, its bytes; written beside and renamed.

    Args:
        folder: made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(self, round_number: int) -> None:
        refuse_earlier(self._last(), round_number)
        (self._folder / "upload").unlink(missing_ok=True)
        self._write("round", str(round_number).encode("ascii"))

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        self._write("upload", upload)

    def kept(self, round_number: int) -> bytes | None:
        path = self._folder / "upload"
        return path.read_bytes() if self._last() == round_number and path.exists() else None

    def _last(self) -> int:
        path = self._folder / "round"
        if not path.exists():
            return -1
        text = path.read_text("ascii", errors="replace")
        if not text.isdigit():
            raise SecureSumError("damaged", field="upload store", value=str(path), remedy="skip a round number, then write the last one begun there")
        return int(text)

    def _write(self, name: str, data: bytes | memoryview) -> None:
        temporary = self._folder / f"{name}.new"
        with temporary.open("wb") as file:
            temporary.chmod(0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / name)


def refuse_earlier(last: int, round_number: int) -> None:
    """Refuse a round that is not newer than the last one begun.

    Raises:
        RoundRefusedError: `already-begun`.
    """
    if round_number <= last:
        remedy = "send the stored upload again, or wait for the next round"
        raise RoundRefusedError(RoundReason.ALREADY_BEGUN, f"round {last} was begun", field="round", value=round_number, remedy=remedy)
