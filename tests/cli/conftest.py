"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `secure-fl`, check its exit code, and that no traceback reaches the user."""

    def run(
        *arguments: object, code: int = 0, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_COLOR": "1", **variables}
        line = [sys.executable, "-m", "secure_fl.cli.main", *map(str, arguments)]
        done = subprocess.run(
            line, capture_output=True, text=True, cwd=cwd, env=environment, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run
