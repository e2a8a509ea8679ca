"""Programs that go on when the one who started them ends, and are found again by a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from secure_fl.errors import SecureFLError
from secure_fl.files import PRIVATE, is_file, make_folder, read_json, remove, write_json

MOST_LOG = 1 << 24
"""Bytes that a log grows to before it is begun again; one that was full is kept beside it."""
_PATIENCE, _GLANCE, _LOOK = 20.0, 0.1, 60.0
_PROC = Path("/proc")


@dataclass(frozen=True)
class _Note:
    """Of a program that was started: its number, and when it was born, since numbers come back."""

    process: int
    born: str


class Program:
    """One program in a folder: `NAME.log` has what it says (and `NAME.log.1` what it said before,
    where it calls `keep_short`), `NAME.json` its number.

    Guarantee: what is stopped is what was started here, with all it started in turn; a process
    that has its number by now is left alone.

    Args:
        folder: made when missing, for its owner only.
        name: of the program there.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.log, self._note = folder / f"{name}.log", folder / f"{name}.json"
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it lives."""
        note = self._noted()
        lives = note is not None and _born(note.process) == note.born
        self._reap()
        return lives

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in a group of its own, in its folder. Raises FileError: the log or the note
        cannot be written.
        """
        make_folder(self._folder, tighten=True)
        if self._child is not None:  # one that was killed may take a moment to be gone
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)
        self._child = started(command, self.log, folder=self._folder, environment=environment)
        number = self._child.pid
        write_json(self._note, asdict(_Note(number, _born(number) or "")))

    def stop(self, seconds: float = _PATIENCE) -> None:
        """Ask it to end, and after so many seconds end it and whatever it started."""
        note = self._noted()
        if note is None or _born(note.process) != note.born:
            self._reap()
            remove(self._note)
            return
        family = {number: _born(number) for number in _family(note.process)}
        with contextlib.suppress(ProcessLookupError):
            os.kill(note.process, signal.SIGTERM)
        until = time.monotonic() + seconds
        while (left := self._living(family)) and time.monotonic() < until:
            time.sleep(_GLANCE)
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        while self._living(family) and time.monotonic() < until + 5:
            time.sleep(_GLANCE)
        self._reap()
        remove(self._note)

    def _living(self, family: Mapping[int, str | None]) -> list[int]:
        living = [number for number, born in family.items() if born and _born(number) == born]
        self._reap()
        return living

    def _reap(self) -> None:
        """Take a child that has ended out of the table: after each look, which may have seen it."""
        if self._child is not None:
            self._child.poll()

    def _noted(self) -> _Note | None:
        if not is_file(self._note):
            return None
        try:
            return read_json(self._note, _Note, "remove it: it says which process runs")
        except SecureFLError:
            return None


def started(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A program that goes on by itself, in a group of its own.

    Args:
        command: one of ours, or of Flower's.
        log: file to which all that it says is added, for its owner alone.
        folder: where it works; here where none is given.
        environment: its own; this process' where none is given.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
    try:
        return subprocess.Popen(  # noqa: S603 # Flower's programs, and our own
            command,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(handle)


def keep_short(name: str) -> None:
    """Look after the log of this process from now on, which a `Program` of this name started: what
    Flower says of every request would fill a disk in the end.
    """
    log = Path(f"{name}.log").resolve()

    def look() -> None:
        while True:
            with contextlib.suppress(OSError):  # a disk that is full: the next time
                begun_again(log)
            time.sleep(_LOOK)

    threading.Thread(target=look, daemon=True).start()


def begun_again(log: Path, most: int = MOST_LOG) -> bool:
    """Begin a log again that is larger than that, whoever has it open to add to it; whether it was.
    What is written just then may be lost.
    """
    if not log.is_file() or log.stat().st_size <= most:
        return False
    before = log.with_name(f"{log.name}.1")
    before.touch(PRIVATE)
    shutil.copyfile(log, before)
    os.truncate(log, 0)
    return True


def _born(number: int) -> str | None:
    """When a living process began; None where there is none."""
    if _PROC.is_dir():
        with contextlib.suppress(OSError):
            facts = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
            return None if facts[0] == "Z" else facts[19]
        return None
    told = _ps("-o", "stat=,lstart=", "-p", str(number)).strip()
    return None if not told or told.startswith("Z") else told.partition(" ")[2].strip()


def _family(number: int) -> list[int]:
    """A process and all that it started, and they in turn."""
    if _PROC.is_dir():
        pairs = []
        for path in _PROC.glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                facts = path.read_text().rpartition(")")[2].split()
                pairs.append((int(path.parent.name), int(facts[1])))
    else:
        lines = _ps("-Ao", "pid=,ppid=").splitlines()
        pairs = [(int(one), int(two)) for one, two in map(str.split, lines)]
    found, left = list[int](), [number]
    while left:
        parent = left.pop()
        found.append(parent)
        left += [child for child, above in pairs if above == parent]
    return found


def _ps(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603 # fixed arguments, where there is no /proc
        ["/bin/ps", *arguments], capture_output=True, text=True, check=False
    ).stdout
