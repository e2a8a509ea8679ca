"""Files are whole or as they were, for their owner only, and a folder is held by one process at
a time.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forks import in_child

from secure_fl import files
from secure_fl.config import SourceConfig
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.data.sources.cifar import cifar10
from secure_fl.data.sources.idx import read_idx
from secure_fl.data.sources.npz import read_arrays
from secure_fl.errors import DataError, FileError, RunFolderError, SecureSumError
from secure_fl.files import (
    PUBLIC,
    append_line,
    make_folder,
    parse_json,
    read_bytes,
    write_atomically,
    write_folder,
    write_json,
)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_modes_hold_under_any_umask(mask: int, tmp_path: Path) -> None:
    top = tmp_path / "a" / "b"
    with umask(mask):
        make_folder(top)
        write_atomically(top / "private", "x")
        write_atomically(top / "public", "x", mode=PUBLIC)
        write_json(top / "json", {})
        append_line(top / "lines", "x", new=True)
        write_folder(top / "folder", {"inside": b"x"})
        write_secret(top / "keys" / "deep" / "secret", b"x")
    private = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "public"]
    assert {path.name for path in private} == {"private", "json", "lines", "inside", "secret"}
    assert {mode(path) for path in private} == {0o600}
    assert mode(top / "public") == 0o644
    assert {mode(path) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}


def test_a_mode_is_the_new_file_s_and_not_the_old_one_s(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    write_atomically(path, "new")
    assert mode(path) == 0o600


WRITES: dict[str, Callable[[Path], None]] = {
    "replace": lambda folder: write_atomically(folder / "file", "n" * 5000),
    "exclusive": lambda folder: write_atomically(folder / "another", "n" * 5000, exclusive=True),
    "append": lambda folder: append_line(folder / "file", "n" * 5000),
    "folder": lambda folder: write_folder(folder / "folder", {"a": b"n" * 10, "b": b"n" * 5000}),
}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    write_atomically(tmp_path / "file", "old\n")
    write_folder(tmp_path / "folder", {"a": b"old", "b": b"old"})
    return tmp_path


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("fails", ["write", "fsync", "open"])
def test_a_write_that_fails_is_typed_and_leaves_all_as_it_was(
    write: str, fails: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = content(old), getattr(os, fails)
    calls = []

    def full(*arguments: object, **more: object) -> object:
        calls.append(arguments)
        if fails == "write" and len(calls) == 1:
            return real(arguments[0], arguments[1][:2])  # type: ignore[index]
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(
            FileError, match=r"\[io\] (file|another|folder): cannot be written: No space left"
        ):
            WRITES[write](old)
    assert content(old) == before
    assert calls
    WRITES[write](old)
    assert content(old) != before


@pytest.mark.parametrize("write", WRITES)
def test_the_system_s_own_limit_is_met_without_loss(write: str, old: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails half way, in
    the kernel.
    """
    before = content(old)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            WRITES[write](old)
        except FileError:
            os._exit(7)
        os._exit(0)

    assert in_child(limited) == 7
    assert content(old) == before


def test_a_plain_write_would_be_caught_half_done(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: writing in place."""
    monkeypatch.setattr(
        files,
        "_write",
        lambda path, data, mode: (
            Path(old / "file").write_bytes(bytes(data)[:3]) and os.open("/none", 0)
        ),
    )
    before = content(old)
    with pytest.raises(FileError):
        WRITES["replace"](old)
    assert content(old) != before


def test_files_and_their_folders_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1]
    )
    write_atomically(tmp_path / "file", "x")
    assert done == ["file", "rename", "folder"]
    append_line(tmp_path / "file2", "x", new=True)
    assert done[3:] == ["file"]


def test_of_several_exclusive_writers_one_succeeds(tmp_path: Path) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        try:
            write_atomically(tmp_path / "file", str(number), exclusive=True)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number) for number in won] == [(tmp_path / "file").read_text()]
    assert len(list(tmp_path.iterdir())) == 1


def test_half_a_line_is_never_continued(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "one", new=True)
    with path.open("a") as file:
        file.write("tw")
    with pytest.raises(RunFolderError, match="half a line"):
        append_line(path, "three")
    assert path.read_text() == "one\ntw"


def test_what_cannot_be_read_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            read_bytes(path)
    write_atomically(tmp_path / "large", "x" * 100)
    with pytest.raises(FileError, match="too large"):
        read_bytes(tmp_path / "large", most=99)
    assert read_bytes(tmp_path / "large", most=100) == b"x" * 100
    with pytest.raises(FileError, match="cannot be made"):
        make_folder(tmp_path / "large")
    with pytest.raises(FileError, match="cannot be made"):
        make_folder(tmp_path / "large" / "below")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(FileError, match="Permission denied"):
        read_bytes(tmp_path / "large")


READERS: dict[str, Callable[[Path], object]] = {
    "bytes": read_bytes,
    "secret": read_secret,
    "npz": read_arrays,
    "idx": read_idx,
    "cifar": lambda path: cifar10(SourceConfig(name="cifar10", path=str(path.parent))),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "pipe behind a link", "device"])
def test_a_pipe_or_device_in_place_of_a_file_is_refused_and_not_waited_for(
    read: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "data_batch_1.bin"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        os.mkfifo(tmp_path / "pipe", 0o600)
        path.symlink_to("/dev/zero" if kind == "device" else "pipe")

    def reads() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
        try:
            READERS[read](path)
        except (FileError, DataError, SecureSumError):
            os._exit(7)
        os._exit(0)

    assert in_child(reads, seconds=10) == 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        '{"a": NaN}',
        "[" * 5000,
        "9" * 5000,
        '"\\ud800"',
        "null",
        '{"a": "secret-number-123"}',
        "\x00",
    ],
)
def test_json_of_another_kind_is_typed_and_not_shown(text: str) -> None:
    with pytest.raises(RunFolderError, match="is damaged") as caught:
        parse_json(text.encode(), dict[str, int], field="f", value="v", remedy="r")
    assert "secret-number" not in str(caught.value)
