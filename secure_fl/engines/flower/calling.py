"""Starts the sites of a federation whose messages go by sessions: one Flower message to each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from secure_fl.engines.flower.door import ABSENT, Answer, Question
from secure_fl.engines.flower.nodes import Node, Seats, nodes_of
from secure_fl.engines.flower.packing import pack, unpack
from secure_fl.errors import EngineError

LOOK = 5.0
_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
_TTL = 30 * 86400.0
"""Seconds for which a site may be in its session."""


@dataclass
class _Called:
    """A site that was called.

    Attributes:
        node: as it was then.
        message: that waits for its answer; empty where it has come.
        again: when it may be called once more.
        pause: how long it is left alone after that.
    """

    node: Node
    message: str
    again: float = 0.0
    pause: float = _PAUSE


class Calls:
    """Calls each site that is there, and each that comes later or again, until it is closed.

    Args:
        grid: Flower's.
        seats: who is who.
        word: of the federation.
        told: is told a site and the word with which its part ended.
    """

    def __init__(
        self, grid: Any, seats: Seats, word: str, told: Callable[[str, str], None] | None = None
    ) -> None:
        self._grid, self._seats, self._word, self._told = grid, seats, word, told
        self._called = dict[str, _Called]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(2 * LOOK)

    def _run(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(Exception):  # a SuperLink that hiccups is asked again
                self.look(time.monotonic())
            self._end.wait(LOOK)

    def look(self, now: float) -> None:
        """Take answers, and call whoever is there and is not called."""
        for site, node in nodes_of(self._grid, self._seats).items():
            called = self._called.get(site)
            if called is not None and called.message and called.node == node:
                self._hear(site, called, now)
            elif called is None or called.node != node or now >= called.again:
                pause = _PAUSE if called is None or called.node != node else called.pause
                self._called[site] = _Called(node, self._call(node), pause=pause)

    def _call(self, node: Node) -> str:
        from flwr.app import Message

        content = pack(Question("session", self._word))
        message = Message(content, node.number, "query", ttl=_TTL)
        return str(next(iter(self._grid.push_messages([message]))))

    def _hear(self, site: str, called: _Called, now: float) -> None:
        for reply in self._grid.pull_messages([called.message]):
            word = code_in(reply)[0]
            called.message, called.again = "", now + called.pause
            called.pause = _PAUSE if word == ABSENT else min(2 * called.pause, _LONGEST_PAUSE)
            if self._told is not None:
                self._told(site, word)


def code_in(reply: Any) -> tuple[str, Answer, list[bytes]]:
    """How a site's answer is, as a word, empty where all is well; the answer, and its messages."""
    if reply.has_error():
        word = reply.error.reason if reply.error.code in (1, 2) else ""
        return (word or f"flower-{reply.error.code}")[:64], Answer(), []
    try:
        answer, frames = unpack(reply.content, Answer)
    except EngineError as error:
        return error.code, Answer(), []
    return answer.code[:64], answer, frames
