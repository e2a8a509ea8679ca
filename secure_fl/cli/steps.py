"""How far a command is that is no run: a bar on the terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

from secure_fl.cli.console import err

Step = TypeVar("Step")
_LOG_SECONDS = 3.0


def steps(said: str, items: Iterable[Step], total: int) -> Iterator[Step]:
    """The items as they come, while a bar on the terminal, or a line now and then in a log, says
    how many there have been. On standard error.
    """
    if err.is_terminal:
        yield from track(items, said, total=total, console=err, transient=True)
        return
    told = time.monotonic()
    for number, item in enumerate(items, 1):
        if time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            err.print(f"{said}: {number} of {total}", markup=False)
        yield item
