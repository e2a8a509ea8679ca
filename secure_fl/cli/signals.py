"""Signals that ask a command for an end: noted the first time, so that it ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noted_signals(again: Callable[[int], BaseException]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM as they come, for as long as this is entered.

    Args:
        again: what ends the command at once where another one comes, by its number.
    """
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise again(number)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
