"""Work in a forked process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

FORK = multiprocessing.get_context("fork")


def in_child(work: Callable[[], None], seconds: float = 30) -> int | None:
    """Run in a forked process; its exit code, None where it did not end."""
    child = FORK.Process(target=work)
    child.start()
    child.join(seconds)
    code = child.exitcode
    child.kill()
    return code
