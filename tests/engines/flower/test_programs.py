"""Programs that outlive their starter: found again, ended with all they started, and no others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from secure_fl.engines.flower import processes
from secure_fl.engines.flower.launching import SuperLink, SuperNode
from secure_fl.engines.flower.processes import Program
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import DependencyError, EngineError

SLEEPS = "import time; time.sleep(600)"
FAMILY = (
    "import subprocess, sys, time; "
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True); "
    "print(child.pid, flush=True); time.sleep(600)"
)


def alive(number: int) -> bool:
    return processes._born(number) is not None


def line_of(program: Program) -> str:
    for _ in range(200):
        text = program.log.read_text()
        if text.endswith("\n"):
            return text.strip()
        time.sleep(0.05)
    raise AssertionError("it says nothing")


def test_one_is_found_again_and_ended_with_what_it_started(tmp_path: Path) -> None:
    program = Program(tmp_path / "own", "trial")
    assert not program.running
    program.start([sys.executable, "-c", FAMILY], os.environ)
    child, again = int(line_of(program)), Program(tmp_path / "own", "trial")
    assert program.running
    assert again.running
    assert alive(child)
    again.stop(5.0)
    assert not program.running
    assert not alive(child)
    assert oct((tmp_path / "own" / "trial.log").stat().st_mode)[-3:] == "600"


def test_one_that_ended_by_itself_does_not_run(tmp_path: Path) -> None:
    program = Program(tmp_path, "trial")
    program.start([sys.executable, "-c", "print('done')"], os.environ)
    line_of(program)
    for _ in range(100):
        if not program.running:
            break
        time.sleep(0.05)
    assert not program.running
    program.stop()


def test_one_that_is_seen_to_have_ended_is_taken_out_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it ends while it is looked at: nothing is left for the collector to warn of."""
    program = Program(tmp_path, "trial")
    program.start([sys.executable, "-c", SLEEPS], os.environ)
    child = program._child
    assert child is not None
    born = processes._born

    def look(number: int) -> str | None:
        os.kill(number, signal.SIGKILL)
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        return born(number)

    monkeypatch.setattr(processes, "_born", look)
    assert not program.running
    assert child.returncode == -signal.SIGKILL


def test_another_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    program = Program(tmp_path, "trial")
    note = tmp_path / "trial.json"
    note.write_text(json.dumps({"process": os.getpid(), "born": "long ago"}))
    assert not program.running
    program.stop()
    assert not note.exists()


class Somewhere:
    host, port, bind = "localhost", 9, "127.0.0.1"


def test_without_flower_a_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_fl.errors.find_spec", lambda _: None)
    tls = TlsFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    link = SuperLink(tmp_path / "link", Somewhere(), tls)
    node = SuperNode(tmp_path / "node", "localhost:9", tmp_path / "a", tmp_path / "k", tmp_path)
    for program in (link, node):
        with pytest.raises(DependencyError, match=r"secure-fl\[flower\]"):
            program.start()


def test_one_that_does_not_come_up_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    for name in "abck":
        (tmp_path / name).write_text("nothing")
    node = SuperNode(tmp_path / "node", "localhost:9", tmp_path / "a", tmp_path / "k", tmp_path)
    with pytest.raises(EngineError, match=r"ended while it started.*supernode\.log"):
        node.start()
    assert not node.running


TALKER = """
import itertools, os
from secure_fl.engines.flower import processes
processes._LOOK = 0.05
processes.begun_again.__defaults__ = (20_000,)
processes.keep_short("talker")
for number in itertools.count():
    print("a request", number, flush=True)
    if os.path.exists("talker.log.1") and os.path.getsize("talker.log") < 20_000:
        break
print("the last", flush=True)
"""


def test_a_log_that_grows_without_end_is_begun_again(tmp_path: Path) -> None:
    """While the program goes on to write to it; the one before is kept, for its owner alone."""
    program = Program(tmp_path, "talker")
    program.start([sys.executable, "-c", TALKER], os.environ | {"PYTHONPATH": str(Path.cwd())})
    end = time.monotonic() + 30
    while program.running and time.monotonic() < end:
        time.sleep(0.05)
    text, before = program.log.read_text(), tmp_path / "talker.log.1"
    assert text.endswith("the last\n")
    assert "\0" not in text, "the file begins where the writing goes on"
    assert before.stat().st_mode & 0o077 == 0
    assert not text.startswith("a request 0\n")
    assert before.stat().st_size > 20_000
    assert not processes.begun_again(tmp_path / "none.log")
    program.stop()
