"""Commands and processes of the example: each is shown, each has its own environment, and what was
started is stopped on any way out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-m", "secure_fl.cli.main"]
Told = Callable[[], str]
PATIENCE = 60.0
"""Seconds that a process may take to end when it is asked to: a clinic waits for its SuperNode."""


class StageError(Exception):
    """A command or a process did not do what it should have."""


def say(text: str) -> None:
    """One line of the story, with the minutes since it began."""
    seconds = int(time.monotonic() - _BEGAN)
    print(f"{seconds // 60}:{seconds % 60:02d}  {text}", flush=True)


_BEGAN = time.monotonic()


class Stage:
    """A folder in which roles are played, each with a home of its own.

    Args:
        folder: everything is written in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.logs.mkdir(parents=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._told = ""

    def __enter__(self) -> Stage:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C does not leave anything
        self.stop_all()

    def stop_all(self) -> None:
        """Ask all that still run to end, and see that they do."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def environment(self, role: str) -> dict[str, str]:
        """Of a role: its state (the keys of what it seals) lies in a folder of its own."""
        state = self.folder / "state" / role
        return {**os.environ, "SECURE_FL_STATE": str(state), "OMP_NUM_THREADS": "1"}

    def log(self, role: str, name: str) -> Path:
        """Where a role's process or its commands are written."""
        path = self.logs / role / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        return path

    def do(self, role: str, *arguments: str, accept: tuple[int, ...] = (0,)) -> str:
        """Type a command as a role; what it printed. Raises StageError: another exit code."""
        line = f"secure-fl {' '.join(arguments)}"
        print(f"      {role}$ {line}", flush=True)
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(role),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        with self.log(role, "commands").open("a") as log:
            log.write(f"$ {line}\n{done.stdout}{done.stderr}")
        if done.returncode not in accept:
            text = (done.stdout + done.stderr).strip()
            raise StageError(f"exit code {done.returncode} of {line}:\n{text}")
        return done.stdout

    def start(self, name: str, role: str, *arguments: str) -> None:
        """Start a command that stays; what it prints goes to logs/ROLE/NAME.log."""
        print(f"      {role}$ secure-fl {' '.join(arguments)} &", flush=True)
        with self.log(role, name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.folder,
                env=self.environment(role),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """kill -9, the process and what it started itself."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """Ask a process to end, and see that it does."""
        process = self._running[name]
        try:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            say(f"{name} does not end: killed")
        finally:
            _kill_group(process)
            process.wait()
            del self._running[name]

    def ended(self, name: str, seconds: float, told: Told | None = None) -> int:
        """Wait until a process has ended, and give its exit code."""
        process = self._running[name]
        self.wait(f"the end of {name}", seconds, lambda: process.poll() is not None, told, but=name)
        _kill_group(process)
        return int(self._running.pop(name).wait())

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of a process' log."""
        text = self.log(name, name).read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait(
        self,
        what: str,
        seconds: float,
        done: Callable[[], bool],
        told: Told | None = None,
        *,
        but: str = "",
    ) -> None:
        """Wait until something holds, and say what is new meanwhile. Raises StageError: it takes
        too long, or a process (but one) ended with an error.
        """
        until = time.monotonic() + seconds
        while not done():
            for name, process in self._running.items():
                if name != but and process.poll() not in (None, 0):
                    problem = f"{name} ended with {process.returncode} before {what}"
                    raise StageError(f"{problem}:\n{self.tail(name)}")
            if time.monotonic() > until:
                raise StageError(f"{what}: not within {seconds:.0f} seconds")
            if told is not None and (new := told()) != self._told:
                self._told = new
                say(new)
            time.sleep(0.3)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what a process left behind in its own group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
