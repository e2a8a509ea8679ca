"""Files and folders: written whole or not at all, readable by their owner only, and a folder held
by one run at a time.

Everything that a run writes goes through here, so that modes, syncing and errors are decided in
one place.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from secure_fl.errors import FileError, RunFolderError, SecureFLError
from secure_fl.lock_holder import in_words, this_process
from secure_fl.records import T, adapter

PRIVATE, PUBLIC = 0o600, 0o644
"""Modes under any umask: a run's files for the owner; cards, rosters, starters for all."""
_FOLDER = 0o700
_LONGEST, _PART = 1 << 26, 1 << 20
_LOCK, _HOLDER = ".lock", ".lock-holder"
_UNFINISHED = ".unfinished"


def write_atomically(
    path: Path, content: str | bytes | memoryview, *, mode: int = PRIVATE, exclusive: bool = False
) -> None:
    """Write a file so that a crash, or a full disk, leaves the old content or the new, never half;
    it outlives a power cut.

    Args:
        content: text is written as UTF-8.
        mode: of the new file, whatever the umask and the old file's mode.
        exclusive: refuse to replace a file that is there; of several writers at once, one succeeds.

    Raises:
        FileExistsError: `exclusive`, and there is a file.
        FileError: it cannot be written; the old content is whole.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = _beside(path)
    try:
        _write(temporary, data, mode)
        if exclusive:
            path.hardlink_to(temporary)
        else:
            temporary.replace(path)
        sync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise file_error(error, path, "written") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: object, *, mode: int = PRIVATE) -> None:
    """JSON, written atomically; NaN is refused."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n", mode=mode)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files in one step, in place of one that is there: a crash leaves the old
    folder, the new one, or none.

    Raises:
        FileError: it cannot be written.
    """
    temporary = _beside(path)
    try:
        with _typed(path, "written"):
            make_folder(temporary)
            for name, data in files.items():
                _write(temporary / name, data, PRIVATE)
            sync(temporary)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def append_line(path: Path, line: str, *, new: bool = False) -> None:
    """Add a line to a file and sync it; one that cannot be written leaves the file as it was.

    Args:
        new: make the file where there is none; else one that is gone is not begun again, since
            it would seem whole without its first lines.

    Raises:
        RunFolderError: it ends in half a line, which a process that was killed left.
        FileError: it cannot be written, or is gone.
    """
    with _typed(path, "written"):
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if new else 0), PRIVATE)
        try:
            os.fchmod(handle, PRIVATE)
            end = os.lseek(handle, 0, os.SEEK_END)
            if end and os.pread(handle, 1, end - 1) != b"\n":
                remedy = "resume the run, which cuts it"
                raise RunFolderError.of_file("ends in half a line", path, remedy)
            try:
                _write_all(handle, f"{line}\n".encode())
                os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, end)
                raise
        finally:
            os.close(handle)


def open_file(path: Path, *, links: bool = True) -> BinaryIO:
    """A file to read from. A pipe or device at its place, which could be waited for or read from
    for ever, is refused at once.

    Args:
        links: whether it may be a symbolic link.

    Raises:
        OSError: it is missing, cannot be read, or is no file.
    """
    handle = os.open(
        path,
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if links else getattr(os, "O_NOFOLLOW", 0)),
    )
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "is a pipe or a device, no file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, *, most: int = _LONGEST) -> bytes:
    """A file's content.

    Raises:
        FileError: it is missing, cannot be read, is no file, or holds more than `most` bytes.
    """
    parts, length = list[bytes](), 0
    with _typed(path, "read"), open_file(path) as file:
        while length <= most and (part := file.read(_PART)):
            parts.append(part)
            length += len(part)
    if length > most:
        raise FileError.of_file("is too large", path, f"name a file of at most {most} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """A JSON file as `kind`, a dataclass or a type of plain values, whose every type is checked;
    see `parse_json`.

    Raises:
        RunFolderError: damaged, or something else.
        FileError: missing, unreadable, or too large.
    """
    return parse_json(read_bytes(path), kind, field=path.name, value=str(path), remedy=remedy)


def parse_json(
    data: bytes,
    kind: type[T],
    *,
    field: str,
    value: object,
    remedy: str,
    error: type[SecureFLError] = RunFolderError,
) -> T:
    """JSON as `kind`, strictly: no NaN, no missing fields, no text for a number.

    What is wrong is said by field and kind of fault, never by the content.

    Raises:
        RunFolderError: or `error`, where it is something else.
    """
    from pydantic import ValidationError
    from pydantic_core import from_json

    try:
        # a number may be too large for a float
        json.dumps(from_json(data, allow_inf_nan=False), allow_nan=False)
        return adapter(kind).validate_json(data, strict=True)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:3])
        raise error(
            f"is damaged: {where or 'content'}: {first['type']}",
            field=field,
            value=value,
            remedy=remedy,
        ) from None
    except (ValueError, RecursionError):
        raise error("is damaged: not JSON", field=field, value=value, remedy=remedy) from None


def make_folder(path: Path, *, tighten: bool = False) -> None:
    """Make a folder, and those above it that are missing, for their owner only.

    One that is there stays as it is, or with `tighten` is closed to others too.

    Raises:
        FileError: it cannot be made or closed, or is a file.
    """
    with _typed(path, "made"):
        if path.is_dir():
            if tighten:
                path.chmod(_FOLDER)
            return
        if path.parent != path:
            make_folder(path.parent)
        with contextlib.suppress(FileExistsError):  # another process made it meanwhile
            path.mkdir(_FOLDER)
            path.chmod(_FOLDER)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file")


def remove(path: Path) -> None:
    """Remove a file, or a folder and all in it, if there is one.

    Raises:
        FileError: it cannot be removed.
    """
    with _typed(path, "removed"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        FileError: nobody can say, since the folder cannot be read.
    """
    with _typed(path, "read"):
        return path.is_file()


def listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing where there is no folder.

    Raises:
        FileError: it cannot be read, or is a file.
    """
    with _typed(folder, "read"), contextlib.suppress(FileNotFoundError):
        return sorted(folder.iterdir())
    return []


def sync(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def held(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder, so that no other run, thread or process does; the system lets go of it when
    this process dies.

    Or hold a file, there or not, from reading it until it is written. Beside the lock a file says
    who holds it.

    Args:
        wait: seconds to wait for another holder.

    Raises:
        RunFolderError: somebody else holds it; the message says who.
        FileError: there is no such folder, or it cannot be locked.
    """
    from filelock import FileLock, Timeout

    folder, name = (path, "") if path.is_dir() else (path.parent, f".{path.name}")
    lock, holder, process = folder / f"{name}{_LOCK}", folder / f"{name}{_HOLDER}", os.getpid()
    taken = FileLock(lock, mode=PRIVATE, thread_local=False, fallback_to_soft=False)
    try:
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder")
        taken.acquire(timeout=wait)
    except Timeout:
        remedy = "wait until it has ended, or end it; then try again"
        raise RunFolderError(
            f"is in use by {in_words(_noted(holder))}",
            field="folder",
            value=str(path),
            remedy=remedy,
        ) from None
    except OSError as error:
        raise file_error(error, lock, "locked") from None
    try:
        write_json(holder, this_process())
        yield
    finally:
        if os.getpid() == process:  # a forked child that leaves this block holds nothing
            remove(holder)
            taken.release()


def is_lock(path: Path) -> bool:
    """Whether this is a trace of a lock on the folder that it is in."""
    return path.name in (_LOCK, _HOLDER)


def lock_of(folder: Path) -> tuple[int, int] | None:
    """Which file a folder's lock is, or None; another one shows that the folder was moved."""
    try:
        found = (folder / _LOCK).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_unfinished(folder: Path) -> None:
    """Remove what writes that were cut short left in a folder that nobody else writes to."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        remove(path)


def is_bare(folder: Path) -> bool:
    """Whether a folder is empty but for the traces of a lock and of writes that were cut short."""
    return all(is_trace(path) for path in listed(folder))


def is_trace(path: Path) -> bool:
    """Whether a file is a trace of a lock, or of a write that was cut short."""
    return is_lock(path) or path.name.endswith(_UNFINISHED)


def holder_of(folder: Path) -> dict[str, int | str]:
    """The note of whoever holds a folder (`lock_holder`), or held it last and was killed; empty
    where there is none.
    """
    return _noted(folder / _HOLDER)


def _noted(holder: Path) -> dict[str, int | str]:
    try:
        return read_json(holder, dict[str, int | str], "")
    except SecureFLError:
        return {}


def _beside(path: Path) -> Path:
    """A name of its own beside a file, to be renamed to it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")


def _write(path: Path, data: bytes | memoryview, mode: int) -> None:
    """A new file of a mode, written and synced."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.fchmod(handle, mode)
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes | memoryview) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(handle, left) :]


@contextlib.contextmanager
def _typed(path: Path, what: str) -> Iterator[None]:
    """Within it the system's refusals become typed errors; see `file_error`."""
    try:
        yield
    except OSError as error:
        raise file_error(error, path, what) from None


def file_error(error: OSError, path: Path, what: str) -> FileError:
    """The system's refusal as a typed error; `what` was to happen: written, read, made."""
    remedy = "check the path, its permissions and the space left"
    return FileError.of_file(
        f"cannot be {what}: {error.strerror or type(error).__name__}", path, remedy
    )
