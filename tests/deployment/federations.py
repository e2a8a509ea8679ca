"""A signed federation in a folder, and a server of it in a process of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployment.made_sites import MadeSite, make_sites, small_config
from deployment.own_sites import Sites

from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.planning import Study
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import SecureFLError


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Trial:
    """A federation that was signed."""

    made: Coordinator
    sites: dict[str, MadeSite]

    @property
    def path(self) -> Path:
        return self.made.path

    def invitation(self, site: str) -> bytes:
        return self.made.invitation_of(site).read_bytes()


def signed_trial(path: Path, **waits: float) -> Trial:
    deadlines = {"join": 60.0, "answer": 30.0, "train": 60.0, "linger": 2.0} | waits
    server = {"host": "localhost", "bind": "127.0.0.1", "port": free_port()}
    settings = Deployment(name="trial", launch="direct", server=server, deadlines=deadlines)
    made = Coordinator.new(path, settings, small_config(), Study())
    sites = make_sites()
    made.publish(made.draft([site.data for site in sites]))
    return Trial(made, {site.name: site for site in sites})


def commanded(*arguments: object) -> tuple[int, str]:
    """A command in this process: its exit code, and all that it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer reads what click will drop
        from typer.testing import CliRunner

        from secure_fl.cli.main import FAILED, app
    done = CliRunner().invoke(app, list(map(str, arguments)))
    said = done.output
    if isinstance(done.exception, SecureFLError):
        return FAILED, f"{said}{done.exception}"
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, said


class Running:
    """A command of ours in a process of its own; what it says is in a file."""

    def __init__(self, log: Path, *arguments: object) -> None:
        self._log = log
        line = [sys.executable, "-m", "secure_fl.cli.main", *map(str, arguments)]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                line, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"}
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, pattern: str, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def code(self, seconds: float = 120.0) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            self.process.wait()


@contextmanager
def running(log: Path, *arguments: object) -> Iterator[Running]:
    made = Running(log, *arguments)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def joined(folder: Path, trial: Trial, *names: str) -> Iterator[Sites]:
    """Some sites, or all."""
    found = Sites(folder, [(trial.sites[n], trial.invitation(n)) for n in names or trial.sites])
    try:
        yield found
    finally:
        found.close()
