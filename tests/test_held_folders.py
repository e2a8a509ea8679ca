"""A folder is held by one run, thread or process at a time."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from forks import FORK, in_child

from secure_fl import files
from secure_fl.errors import FileError, RunFolderError
from secure_fl.files import (
    held,
    write_atomically,
)


def tried(folder: Path) -> None:
    try:
        with held(folder):
            os._exit(0)
    except RunFolderError as refused:
        os._exit(3 if f"process {os.getppid()} of" in str(refused) else 4)


def test_a_held_folder_is_refused_to_the_same_thread_others_forks_and_processes(
    tmp_path: Path,
) -> None:
    with held(tmp_path):
        with (
            pytest.raises(
                RunFolderError, match=f"in use by process {os.getpid()} of .* on .* since 20"
            ),
            held(tmp_path),
        ):
            pass
        refused: list[bool] = []

        def other() -> None:
            try:
                with held(tmp_path):
                    refused.append(False)
            except RunFolderError:
                refused.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert refused == [True]
        assert in_child(lambda: tried(tmp_path)) == 3
    assert in_child(lambda: tried(tmp_path)) == 0
    with held(tmp_path):
        pass


def test_a_killed_holder_holds_nothing_even_where_a_child_of_its_lives_on(tmp_path: Path) -> None:
    ready, reader = os.pipe()[::-1]

    def holder() -> None:
        with held(tmp_path):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os.write(ready, b"x")
            time.sleep(20)

    child = FORK.Process(target=holder)
    child.start()
    os.read(reader, 1)
    with pytest.raises(RunFolderError, match=f"process {child.pid} of"), held(tmp_path):
        pass
    child.kill()
    child.join()
    with held(tmp_path):
        assert json.loads((tmp_path / ".lock-holder").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".lock-holder").exists()


def test_a_fork_that_leaves_the_block_lets_nobody_in(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(held(tmp_path))
        assert in_child(stack.close) == 0
        assert (tmp_path / ".lock-holder").exists()
        with pytest.raises(RunFolderError, match="in use"), held(tmp_path):
            pass


def test_waiting_for_a_holder(tmp_path: Path) -> None:
    inside = threading.Event()

    def brief() -> None:
        with held(tmp_path):
            inside.set()
            time.sleep(0.2)

    thread = threading.Thread(target=brief)
    thread.start()
    inside.wait()
    with held(tmp_path, wait=10):
        pass
    thread.join()


def test_what_was_left_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = files._beside(tmp_path / "file"), files._beside(tmp_path / "deep" / "folder")
    left[1].mkdir(parents=True)
    left[0].touch()
    assert not files.is_bare(tmp_path)
    files.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]
    (tmp_path / "deep").rmdir()
    left[0].touch()
    assert files.is_bare(tmp_path)


def test_a_file_is_held_apart_from_its_folder_and_its_neighbours(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for path in (tmp_path, tmp_path / "roster", tmp_path / "another"):
            stack.enter_context(held(path))
        with pytest.raises(RunFolderError, match="in use"):
            stack.enter_context(held(tmp_path / "roster"))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".roster.lock", ".another.lock"}


def test_of_changes_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "count"
    write_atomically(path, "0")

    def add() -> None:
        for _ in range(5):
            with held(path, wait=30):
                write_atomically(path, str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "20"


def test_a_folder_that_cannot_be_locked_is_typed(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be locked"), held(tmp_path / "none" / "file"):
        pass
