"""What a client remembers of rounds it has begun, so that no second vector is ever masked, noised or encrypted for one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from secure_fl.errors import SecureSumError
from secure_fl.files import held, is_file, make_folder, read_bytes, remove, remove_unfinished, write_atomically
from secure_fl.secure_sum.round_messages import RoundReason, RoundRefusedError

_PATIENCE = 10.0
_LARGEST = 1 << 36
_ROUND = re.compile(r"[0-9]{1,18}")


class UploadStore(Protocol):
    """Outlives the client's process. Contents are protected already; they are no secret."""

    def begin(self, round_number: int, question: bytes = b"") -> None:
        """Record, before anything is sent, that a round has begun; refuse one that has, or an earlier one, or one whose question was opened."""

    def open(self, question: bytes) -> None:
        """Record, before anything is given out that opens a sum of answers to this question, that one may be open."""

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        """Record an upload's bytes before they are sent."""

    def kept(self, round_number: int) -> bytes | memoryview | None:
        """The upload of that round, if there is one."""


class MemoryStore:
    """Keeps the last round in memory: for simulations in one process, where nothing survives a kill.

    Args:
        uploads: whether to keep their bytes, which a simulation of many clients has no memory for.
    """

    def __init__(self, *, uploads: bool = True) -> None:
        self._last, self._uploads = -1, uploads
        self._upload: bytes | memoryview = b""
        self._opened = set[bytes]()

    def begin(self, round_number: int, question: bytes = b"") -> None:
        refuse_earlier(self._last, round_number)
        refuse_opened(self._opened, question)
        self._last, self._upload = round_number, b""

    def open(self, question: bytes) -> None:
        self._opened |= {question} - {b""}

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        self._upload = upload if self._uploads else b""

    def kept(self, round_number: int) -> bytes | memoryview | None:
        return self._upload or None if round_number == self._last else None

    def release(self) -> None:
        """Forget the bytes, not the round: what a simulation does once the server has them."""
        self._upload = b""


class FolderStore:
    """Keeps the last round in a folder of its own: `round`, its number, and `upload`, its bytes; and `opened`, all questions opened, in hex.

    Of several processes of one client, one begins a round; the others are refused.

    Args:
        folder: made when missing.

    Raises:
        FileError: it cannot be read or written; so do the methods.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)

    def begin(self, round_number: int, question: bytes = b"") -> None:
        with held(self._folder, wait=_PATIENCE):
            refuse_earlier(self._last(), round_number)
            refuse_opened(self._opened(), question)
            remove_unfinished(self._folder)
            remove(self._folder / "upload")
            write_atomically(self._folder / "round", str(round_number))

    def open(self, question: bytes) -> None:
        if not question:
            return
        with held(self._folder, wait=_PATIENCE):
            opened = self._opened()
            if question not in opened:
                write_atomically(self._folder / "opened", "".join(f"{each.hex()}\n" for each in sorted(opened | {question})))

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        with held(self._folder, wait=_PATIENCE):
            if self._last() != round_number:
                refuse_earlier(self._last(), round_number)
                remedy = "begin the round first"
                raise RoundRefusedError(RoundReason.OUT_OF_TURN, "was not begun", field="round", value=round_number, remedy=remedy)
            try:
                write_atomically(self._folder / "upload", upload, exclusive=True)
            except FileExistsError:
                refuse_earlier(round_number, round_number)

    def kept(self, round_number: int) -> bytes | None:
        path = self._folder / "upload"
        return read_bytes(path, most=_LARGEST) if self._last() == round_number and is_file(path) else None

    def _last(self) -> int:
        path = self._folder / "round"
        if not is_file(path):
            return -1
        text = read_bytes(path).decode("ascii", errors="replace")
        if not _ROUND.fullmatch(text):
            raise SecureSumError("damaged", field="upload store", value=str(path), remedy="skip a round number, then write the last one begun there")
        return int(text)

    def _opened(self) -> set[bytes]:
        path = self._folder / "opened"
        try:
            return {bytes.fromhex(line) for line in read_bytes(path, most=_LARGEST).decode("ascii").splitlines()} if is_file(path) else set()
        except ValueError:
            remedy = "take part in no round that is tried again, and remove it when the run is over"
            raise SecureSumError("damaged", field="upload store", value=str(path), remedy=remedy) from None


def refuse_opened(opened: set[bytes], question: bytes) -> None:
    """Refuse a round for answers of which another sum may be open: the two differ by the answer of whoever is missing from one.

    Raises:
        RoundRefusedError: `already-opened`.
    """
    if question in opened:
        remedy = "ask something else: a round is tried again only while it is closed"
        raise RoundRefusedError(RoundReason.ALREADY_OPENED, "a sum of these answers", field="question", value=question.hex()[:16], remedy=remedy)


def refuse_earlier(last: int, round_number: int) -> None:
    """Refuse a round that is not newer than the last one begun.

    Raises:
        RoundRefusedError: `already-begun`.
    """
    if round_number <= last:
        remedy = "send the stored upload again, or wait for the next round"
        raise RoundRefusedError(RoundReason.ALREADY_BEGUN, f"round {last} was begun", field="round", value=round_number, remedy=remedy)
