"""Processes that start at once: forked from one that has imported everything.

It reads one line of JSON at a time from standard input, and answers each with a line: `{"live":
facts}` with the process' number, `{"ended": number}` with its status, or null while it lives.
When its input ends, it kills all that it started, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch


class Nursery:
    """Starts processes of toy federations."""

    def __init__(self) -> None:
        path = os.pathsep.join(one for one in sys.path if one)
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", "from engines.session.nursery import serve; serve()"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env=environment, text=True, bufsize=1
        )

    def start(self, facts: dict[str, Any]) -> int:
        """Its number."""
        return int(self._ask({"live": facts}))

    def ended(self, number: int) -> int | None:
        """Its status once it has ended, or minus the signal that ended it; told once."""
        found: int | None = self._ask({"ended": number})
        return found

    def close(self) -> None:
        """End it, and whatever it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    """The process that the others are forked from."""
    import torch
    from engines.session.lives import live

    torch.set_num_threads(1)
    started = set[int]()
    for line in sys.stdin:
        asked = json.loads(line)
        if "live" in asked:
            number = _fork(live, asked["live"])
            started.add(number)
            answer: int | None = number
        else:
            number, status = os.waitpid(asked["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if number else None
            started.discard(number)
        print(json.dumps(answer), flush=True)
    for number in started:
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def _fork(live: Callable[[dict[str, Any]], bool], facts: dict[str, Any]) -> int:
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        log = os.open(
            Path(facts["folder"]) / f"{facts['name']}.log",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o600,
        )
        for standard in (1, 2):
            os.dup2(log, standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # a process that is killed loses nothing that it gave to the system
        with patch("os.fsync"):
            status = 0 if live(facts) else 3
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
