"""What a client remembers of rounds it has begun, so that a kill makes it answer nothing twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.errors import SecureSumError
from secure_fl.files import (
    held,
    is_file,
    listed,
    make_folder,
    read_bytes,
    remove,
    remove_unfinished,
    write_atomically,
)
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

_PATIENCE = 10.0
_LARGEST = 1 << 36
_ROUND = re.compile(r"[0-9]{1,18}")
_BEGUN = re.compile(r"[0-9]{1,18}( [0-9]{1,18})*")
_STATE, _UPLOAD = "state", "upload"
_KEPT = 2
"""Rounds beside the one that begins whose files stay: one that runs, one begun ahead in vain."""


class RoundStore(Protocol):
    """What a client remembers of its rounds when its process ends."""

    def begin(self, round_number: int, question: bytes = b"", state: Sealed | None = None) -> None:
        """Record, before anything is sent, that a round has begun, and the state it begins with.
        Refuse a round that has begun, or an earlier one, or one whose question was opened.
        """

    def open(self, question: bytes, round_number: int) -> None:
        """Record that a sum of answers to this question may be open. It comes before anything goes
        out that opens one. Refuse where another round's may be.
        """

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        """Record an upload's bytes before they are sent."""

    def kept(self, round_number: int) -> bytes | memoryview | None:
        """The upload of that round, if there is one."""

    def save(self, round_number: int, state: Sealed) -> None:
        """Record how far a round that was begun is, before what follows from that is sent."""

    def saved(self, round_number: int, context: bytes) -> bytes | None:
        """The state recorded last, if there is one."""


class Sealed:
    """A state that is encoded only where it is kept: what makes it, and what it is for."""

    def __init__(self, context: bytes, encode: Callable[[], bytes]) -> None:
        self._context, self._encode = context, encode

    def under(self, key: bytes) -> bytes:
        """The encoded state as it is now, sealed under a key of 32 bytes."""
        return seal_with(key, self._encode(), self._context)


class MemoryStore:
    """Keeps rounds in memory: for simulations in one process, where nothing survives a kill.

    Args:
        bytes_too: whether to keep uploads, which a simulation of many clients has no memory for.
    """

    def __init__(self, *, bytes_too: bool = True) -> None:
        self._last, self._bytes_too = -1, bytes_too
        self._uploads = dict[int, bytes | memoryview]()
        self._opened = dict[bytes, int]()

    def begin(self, round_number: int, question: bytes = b"", state: Sealed | None = None) -> None:
        refuse_earlier(self._last, round_number)
        refuse_opened(self._opened, question)
        self._last = round_number
        for old in sorted(self._uploads)[:-_KEPT]:
            del self._uploads[old]

    def open(self, question: bytes, round_number: int) -> None:
        if question:
            refuse_opened(self._opened, question, round_number)
            self._opened[question] = round_number

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        if self._bytes_too:
            self._uploads[round_number] = upload

    def kept(self, round_number: int) -> bytes | memoryview | None:
        return self._uploads.get(round_number)

    def save(self, round_number: int, state: Sealed) -> None:
        pass

    def saved(self, round_number: int, context: bytes) -> bytes | None:
        return None

    def release(self) -> None:
        """Forget the bytes, not the rounds: what a simulation does once the server has them."""
        self._uploads.clear()


class FolderStore:
    """Keeps rounds in a folder of its own.

    `round` has the numbers of the last ones begun; `opened`, all questions opened, in hex, each
    with its round; `7.state` and `7.upload` are what round 7 needs to go on. Of several processes
    of one client, one begins a round; the others are refused.

    **Guarantee.** Who has the folder without the key reads no secret of a round. A state that was
    changed, or is another client's, plan's or round's, is refused.
    **Assumes.** The key lies elsewhere. One process at a time goes on with a round: whoever runs
    the client holds its folder. The folder is not put back to what it was: an older state would
    answer again what it has answered.
    **Not covered.** Blocks of a replaced file that a disk still holds.

    Args:
        folder: made when missing.
        key: 32 bytes that seal states; without one none is kept, and a client that is killed is
            silent for the rest of the round but for its upload.

    Raises:
        FileError: it cannot be read or written; so do the methods.
    """

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        self._folder, self._key = folder, key
        make_folder(folder)

    def begin(self, round_number: int, question: bytes = b"", state: Sealed | None = None) -> None:
        with held(self._folder, wait=_PATIENCE):
            begun = self._begun()
            refuse_earlier(max(begun, default=-1), round_number)
            refuse_opened(self._opened(), question)
            remove_unfinished(self._folder)
            kept = sorted(begun)[-_KEPT:]
            for number in self._numbers() - set(kept):
                for part in (_STATE, _UPLOAD):
                    remove(self._file(number, part))
            if state is not None:  # a mark as well: a kill before the next line loses nothing
                self._seal(round_number, state)
            numbers = " ".join(map(str, [*kept, round_number]))
            write_atomically(self._folder / "round", numbers)

    def open(self, question: bytes, round_number: int) -> None:
        if not question:
            return
        with held(self._folder, wait=_PATIENCE):
            opened = self._opened()
            refuse_opened(opened, question, round_number)
            if question not in opened:
                opened[question] = round_number
                lines = "".join(f"{each.hex()} {number}\n" for each, number in opened.items())
                write_atomically(self._folder / "opened", lines)

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        with held(self._folder, wait=_PATIENCE):
            begun = self._begun()
            if round_number not in begun:
                refuse_earlier(max(begun, default=-1), round_number)
                problem, remedy = "was not begun", "begin the round first"
                raise RoundRefusedError(
                    RoundReason.OUT_OF_TURN, problem, "round", round_number, remedy
                )
            try:
                write_atomically(self._file(round_number, _UPLOAD), upload, exclusive=True)
            except FileExistsError:
                refuse_earlier(round_number, round_number)  # it has its vector

    def kept(self, round_number: int) -> bytes | None:
        path = self._file(round_number, _UPLOAD)
        return read_bytes(path, most=_LARGEST) if is_file(path) else None

    def save(self, round_number: int, state: Sealed) -> None:
        self._seal(round_number, state)

    def saved(self, round_number: int, context: bytes) -> bytes | None:
        path = self._file(round_number, _STATE)
        if self._key is None or not is_file(path):
            return None
        try:
            return open_with(self._key, read_bytes(path, most=_LARGEST), context)
        except SecureSumError:
            problem = "damaged, of another client, plan or round, or sealed under another key"
            remedy = "take part from the next round on; this one goes on without the client"
            raise SecureSumError(problem, "round store", str(path), remedy) from None

    def _seal(self, round_number: int, state: Sealed) -> None:
        if self._key is not None:
            write_atomically(self._file(round_number, _STATE), state.under(self._key))

    def _file(self, round_number: int, part: str) -> Path:
        return self._folder / f"{round_number}.{part}"

    def _numbers(self) -> set[int]:
        found = (path.name.split(".") for path in listed(self._folder))
        return {
            int(name[0])
            for name in found
            if len(name) == 2 and _ROUND.fullmatch(name[0]) and name[1] in (_STATE, _UPLOAD)
        }

    def _begun(self) -> set[int]:
        """The numbers of the last rounds that were begun."""
        path, begun = self._folder / "round", self._numbers()
        if not is_file(path):
            return begun
        text = read_bytes(path).decode("ascii", errors="replace")
        if not _BEGUN.fullmatch(text):
            remedy = "skip a round number, then write the last one begun there"
            raise SecureSumError("damaged", "round store", str(path), remedy)
        return begun | set(map(int, text.split(" ")))

    def _opened(self) -> dict[bytes, int]:
        path = self._folder / "opened"
        if not is_file(path):
            return {}
        try:
            lines = read_bytes(path, most=_LARGEST).decode("ascii").splitlines()
            pairs = (line.split(" ") for line in lines)
            return {bytes.fromhex(question): int(number) for question, number in pairs}
        except ValueError:
            remedy = "take part in no round that is tried again; remove it when the run is over"
            raise SecureSumError("damaged", "round store", str(path), remedy) from None


def refuse_opened(opened: Mapping[bytes, int], question: bytes, by: int | None = None) -> None:
    """Refuse a round for answers of which a sum may be open, but by the round `by`. The two differ
    by the answer of whoever is missing from one. Raises RoundRefusedError: `already-opened`.
    """
    if question in opened and opened[question] != by:
        problem = "a sum of these answers"
        remedy = "ask something else: a round is tried again only while it is closed"
        raise RoundRefusedError(
            RoundReason.ALREADY_OPENED, problem, "question", question.hex()[:16], remedy
        )


def refuse_earlier(last: int, round_number: int) -> None:
    """Refuse a round that is not newer than the last one begun. Raises RoundRefusedError:
    `already-begun`.
    """
    if round_number <= last:
        problem = f"round {last} was begun"
        remedy = "send the stored upload again, or wait for the next round"
        raise RoundRefusedError(RoundReason.ALREADY_BEGUN, problem, "round", round_number, remedy)
