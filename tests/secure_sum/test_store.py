"""The store of uploads: of several processes of one client, one begins a round, and its bytes are
the round's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_fl.errors import FileError, SecureSumError
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.store import FolderStore, MemoryStore, RoundStore


def together(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def begun_by(folder: Path, count: int) -> list[int]:
    """Which of several stores on one folder, at once, began the round."""
    begun: list[int] = []

    def begin(number: int) -> None:
        try:
            FolderStore(folder).begin(7)
            begun.append(number)
        except RoundRefusedError:
            pass

    together(begin, count)
    return begun


def test_one_of_many_begins_a_round(tmp_path: Path) -> None:
    assert len(begun_by(tmp_path / "store", 8)) == 1


def test_without_the_lock_several_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: reading the last round and writing the next one, with others
    in between.
    """
    barrier = threading.Barrier(2, timeout=10)

    def begin(self: FolderStore, round_number: int) -> None:
        last = self._begun()
        barrier.wait()
        if round_number <= max(last, default=-1):
            raise AssertionError("seen in time")

    monkeypatch.setattr(FolderStore, "begin", begin)
    assert len(begun_by(tmp_path / "store", 2)) == 2


def test_an_upload_belongs_to_the_round_that_was_begun_and_is_kept_once(tmp_path: Path) -> None:
    slow, quick = FolderStore(tmp_path), FolderStore(tmp_path)
    for number in range(1, 5):
        quick.begin(number)
    with pytest.raises(RoundRefusedError, match="already-begun"):
        slow.keep(1, b"of a round that is long over")
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        quick.keep(5, b"of a round that was not begun")
    assert quick.kept(3) is None
    # round 4 was begun ahead while round 3 runs
    quick.keep(3, memoryview(b"first"))
    with pytest.raises(RoundRefusedError, match="already-begun"):
        slow.keep(3, b"second")
    assert quick.kept(3) == slow.kept(3) == b"first"
    slow.begin(5)
    assert quick.kept(3) == b"first"
    slow.begin(6)
    assert quick.kept(3) is None
    assert quick.kept(4) is None


def test_files_are_the_owner_s_and_what_cannot_be_written_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        store = FolderStore(tmp_path / "deep" / "store")
        store.begin(1)
        store.keep(1, b"x")
    finally:
        os.umask(before)
    assert {
        path.stat().st_mode & 0o777 for path in (tmp_path / "deep").rglob("*") if path.is_file()
    } == {0o600}
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o700

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(FileError, match="No space"):
            store.begin(2)
    assert store.kept(1) == b"x"
    store.begin(2)


@pytest.mark.parametrize("text", [b"", b"x", b"1" * 5000, b"-1", b"\xff", b"1\n"])
def test_a_damaged_number_is_typed(text: bytes, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "round").write_bytes(text)
    with pytest.raises(SecureSumError, match="damaged"):
        store.begin(1)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_question_whose_sum_was_opened_is_not_begun_again(kind: str, tmp_path: Path) -> None:
    store: RoundStore = MemoryStore() if kind == "memory" else FolderStore(tmp_path)
    first, second = bytes([1] * 32), bytes([2] * 32)
    for number, question in enumerate([first, first, b"", second]):
        store.begin(number, question)
    for number, question in ((0, first), (2, b""), (3, second), (0, first)):
        store.open(question, number)
    store = store if kind == "memory" else FolderStore(tmp_path)
    for question in (first, second):
        with pytest.raises(RoundRefusedError, match="already-opened"):
            store.begin(4, question)
        with pytest.raises(RoundRefusedError, match="already-opened"):
            store.open(question, 1)
    store.begin(4, b"")
    store.begin(5, bytes([3] * 32))


def test_a_damaged_list_of_questions_is_typed(tmp_path: Path) -> None:
    (tmp_path / "opened").write_bytes(b"no hex\n")
    with pytest.raises(SecureSumError, match="damaged"):
        FolderStore(tmp_path).begin(1, bytes(32))
