"""What the tests of the command line share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from cli.commands import secure_fl

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `secure-fl`, check its exit code, and that no traceback reaches the user."""
    return secure_fl
