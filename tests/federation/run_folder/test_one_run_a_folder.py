"""Of two runs in one folder the second is refused, wherever it comes from, and nothing is
released twice.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from federation.folders import CLIENTS, ROUNDS, private_config, recorded_rounds, resumed, stopped
from helpers import StopAfter, tiny_config

from secure_fl import Callback, Dataset, Federation
from secure_fl import run as run_module
from secure_fl.errors import RunFolderError, SecureFLError
from secure_fl.privacy.ledger import PrivacyLedger

FORK = multiprocessing.get_context("fork")


class During(Callback):
    """Does something once, when the clients of the second round, or of the one after so many,
    have answered.
    """

    def __init__(self, work: Callable[[], None], after: int = 1) -> None:
        self.work, self.after, self.rounds, self.done = work, after, 0, False

    def on_round(self, record: object) -> None:
        self.rounds += 1

    def on_client(self, done: int, total: int) -> None:
        if self.rounds == self.after and done == total and not self.done:
            self.done = True
            self.work()


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_fork(work: Callable[[], None]) -> None:
    child = FORK.Process(target=lambda: (work(), os._exit(0)))
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    "place", [lambda work: work(), in_thread, in_fork], ids=["callback", "thread", "fork"]
)
@pytest.mark.parametrize("private", [True, False], ids=["private", "open"])
def test_a_second_run_is_refused_while_the_first_is_at_work(
    place: Callable[[Callable[[], None]], None], private: bool, tmp_path: Path, images: Dataset
) -> None:
    out, config = tmp_path / "run", private_config(privacy={} if private else {"unit": "none"})

    def second() -> None:
        for resume in (True, False):
            with pytest.raises(
                RunFolderError,
                match=f"in use by process {os.getpid()}|in use by process "
                f"{os.getppid()}|already holds",
            ) as caught:
                Federation(config, data=images).run(out, resume=resume)
            assert ("in use" in str(caught.value)) == resume

    Federation(config, data=images, callbacks=[During(lambda: place(second))]).run(out)
    assert recorded_rounds(out) == ROUNDS
    if private:
        assert len(PrivacyLedger.load(out / "ledger.json").releases) == ROUNDS * CLIENTS
    assert Federation(config, data=images).run(out, resume=True).summary.status == "finished", (
        "free again"
    )


def test_without_the_lock_rounds_are_recorded_twice(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: what the test above would see."""

    @contextlib.contextmanager
    def nothing(folder: Path) -> Iterator[None]:
        yield

    monkeypatch.setattr(run_module, "held", nothing)
    out = tmp_path / "run"
    with contextlib.suppress(Exception):
        Federation(
            private_config(), data=images, callbacks=[During(lambda: resumed(out, images) and None)]
        ).run(out)
    assert recorded_rounds(out) != ROUNDS or not (out / "summary.json").exists()


def test_a_fork_that_goes_on_with_its_parent_s_run_is_refused(
    tmp_path: Path, images: Dataset
) -> None:
    out, told = tmp_path / "run", tmp_path / "told"

    class Fork(Callback):
        def on_round(self, record: Any) -> None:
            if record.round == 1 and record.phase == "pretrain":
                child = os.fork()
                if child:
                    os.waitpid(child, 0)

    def work() -> None:
        parent = os.getpid()
        try:
            Federation(tiny_config(), data=images, callbacks=[Fork()]).run(out)
        except RunFolderError as refused:
            assert os.getpid() != parent
            told.write_text(str(refused))
        finally:
            os._exit(0)

    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    assert "a copy of which this is" in told.read_text()
    rounds = [
        (line["phase"], line["round"])
        for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    ]
    assert len(rounds) == len(set(rounds))
    assert (out / "summary.json").exists()


def test_a_run_that_failed_or_was_killed_leaves_its_folder_free(
    tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 1)

    def killed() -> None:
        class Die(Callback):
            def on_round(self, record: object) -> None:
                os.kill(os.getpid(), 9)

        Federation(private_config(), data=images, callbacks=[Die()]).run(out, resume=True)

    child = FORK.Process(target=killed)
    child.start()
    child.join(60)
    assert child.exitcode == -9
    assert (out / ".lock-holder").exists(), "nobody took it away"
    assert resumed(out, images).summary.privacy.releases == ROUNDS * CLIENTS


def test_folders_of_other_things_are_left_alone(tmp_path: Path, images: Dataset) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Exception, match=r"already holds|is a file|below a file") as caught:
            Federation(tiny_config(), data=images).run(out)
        assert caught.type.__module__ == "secure_fl.errors"
    with pytest.raises(RunFolderError, match="holds no run"):
        Federation(tiny_config(), data=images).run(tmp_path / "none", resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "file"}


def test_a_folder_that_only_a_lock_was_left_in_can_be_used(tmp_path: Path, images: Dataset) -> None:
    out = tmp_path / "run"
    out.mkdir(mode=0o755)
    (out / ".lock").touch()
    (out / ".config.toml.0123456789abcdef.unfinished").write_text("half")
    with pytest.raises(KeyboardInterrupt):
        Federation(tiny_config(), data=images, callbacks=[StopAfter(1)]).run(out)
    assert not list(out.glob("*.unfinished"))
    assert out.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("when", [pytest.param("beside", marks=pytest.mark.slow), "after"])
def test_a_copy_of_a_private_run_releases_nothing_once_more(
    when: str, tmp_path: Path, images: Dataset
) -> None:
    """Resumed beside the run or after its end, a copy would answer what the run answers too, with
    other noise, and charge it in its own ledger.
    """
    out, copy = tmp_path / "run", tmp_path / "copy"
    stopped(out, images, 2)
    shutil.copytree(out, copy)
    before = (copy / "ledger.json").read_bytes()

    def second() -> None:
        with pytest.raises(
            SecureFLError,
            match="a copy of it, is in use by process"
            if when == "beside"
            else "state directory counts 8",
        ):
            resumed(copy, images)

    callbacks = [During(second, after=0)] if when == "beside" else []
    Federation(private_config(), data=images, callbacks=callbacks).run(out, resume=True)
    second() if when == "after" else None
    assert (copy / "ledger.json").read_bytes() == before
    assert resumed(out, images).summary.status == "finished", "the run itself is not refused"


@pytest.mark.parametrize("how", ["moved", "deleted"])
@pytest.mark.parametrize("private", [True, False], ids=["private", "open"])
def test_a_run_whose_folder_was_moved_writes_nothing_into_the_next_one(
    how: str, private: bool, tmp_path: Path, images: Dataset
) -> None:
    out, config = tmp_path / "run", private_config(privacy={} if private else {"unit": "none"})
    written: dict[Path, bytes] = {}

    def replaced() -> None:
        out.rename(tmp_path / "moved") if how == "moved" else shutil.rmtree(out)
        with pytest.raises(KeyboardInterrupt):
            Federation(config, data=images, callbacks=[StopAfter(2)]).run(out)
        written.update({path: path.read_bytes() for path in out.rglob("*") if path.is_file()})

    with pytest.raises(RunFolderError, match="was moved, deleted or replaced"):
        Federation(config, data=images, callbacks=[During(replaced)]).run(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == written
    for folder in [out] + ([tmp_path / "moved"] if how == "moved" else []):
        assert Federation(config, data=images).run(folder, resume=True).summary.status == "finished"
        assert recorded_rounds(folder) == ROUNDS
