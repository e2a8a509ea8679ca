"""`secure-fl site run` as a process of a test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
LINE = "from secure_fl.cli.main import main; main()"


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", LINE, *map(str, words)]


def environment() -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


class SiteProcess:
    """One site, its output in a file beside its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder.with_suffix(".out")
        self.start()

    def start(self) -> None:
        line = command("site", "run", self.folder)
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(line, stdout=file, stderr=file, env=environment())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        return self.output.read_text()


def wait_until(holds: Callable[[], bool], seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "never"
        time.sleep(0.05)
