"""Where messages wait: on their way out, and until somebody takes what has come in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from queue import Empty, SimpleQueue

from secure_fl.engines.session.frames import FAREWELL, PART, SMALL, Deliver, cut
from secure_fl.engines.session.link import Arrived, Event
from secure_fl.federation.parties.party import Message

MOST_WAITING = 1024
"""Messages that may wait for one reader; more is more than any plan lets a party say at once."""
MOST_SMALL = 32
"""Small messages of one machine that wait here, however many streams it has had."""
PACE = 8e3
"""Bytes a second that a large message comes at on the whole, or its sender has stalled: an eighth
of the slowest line that a site is expected to have.
"""
_GLANCE = 0.2


class Outbox:
    """What is to be said on one stream. It refers to the bytes that it is given."""

    def __init__(self) -> None:
        self._waiting, self._changed = deque[Message](), threading.Condition()
        self._open, self._farewell = True, False

    def put(self, message: Message) -> bool:
        """Whether there is room for it. Nothing is said any more once the box is shut."""
        with self._changed:
            if not self._open:
                return True
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(message)
            self._changed.notify()
        return True

    def shut(self, *, drop: bool = True) -> None:
        """Take nothing more, and let go of what waits; or say that first, and a farewell."""
        with self._changed:
            self._open, self._farewell = False, self._open and not drop
            if drop:
                self._waiting.clear()
            self._changed.notify()

    def frames(self) -> Iterator[bytes]:
        """Frames of what is put in, until the box is shut."""
        while (frames := self._next()) is not None:
            yield from frames
        if self._farewell:
            yield FAREWELL

    def _next(self) -> Iterator[bytes] | None:
        """Frames of the next message, which alone refer to it: so it is free once it was said."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            return cut(self._waiting.popleft()) if self._waiting else None


class Inbox:
    """What has happened, in order. Whoever asks for the next event is done with the one before."""

    def __init__(self) -> None:
        self._events: SimpleQueue[tuple[Event, Callable[[], None]]] = SimpleQueue()
        self._done: Callable[[], None] = _nothing

    def put(self, event: Event, done: Callable[[], None] | None = None) -> None:
        """Something has happened; `done` is called when somebody is done with it."""
        self._events.put((event, done or _nothing))

    def receive(self, seconds: float) -> Event | None:
        """The next event; None where there is none for so long."""
        done, self._done = self._done, _nothing
        done()
        try:
            event, self._done = self._events.get(timeout=max(0.0, seconds))
        except Empty:
            return None
        return event


class EndedError(Exception):
    """The stream has ended for which somebody waited."""


class StreamRoom:
    """Room for what comes on one stream: a few small messages, and a place for a large one that
    all streams of a process share.

    Args:
        place: that all share.
        slots: for small messages, that all streams of the same machine share: what it said on an
            earlier one may still wait.
        ended: whether the stream has ended.
    """

    def __init__(
        self,
        place: threading.Semaphore,
        slots: threading.Semaphore,
        ended: Callable[[], bool],
    ) -> None:
        self._place, self._slots, self._ended = place, slots, ended
        self._since: tuple[float, float, int] | None = None
        """When a message began, when its last part came, and how many came."""

    def take(self, size: int) -> Callable[[], None]:
        """Wait for room. Raises EndedError: the stream has ended meanwhile."""
        taken = self._place if size > SMALL else self._slots
        while not taken.acquire(timeout=_GLANCE):
            if self._ended():
                raise EndedError
        if self._ended():
            taken.release()
            raise EndedError
        return _once(taken)

    def progress(self, *, done: bool = False) -> None:
        """A part is waited for from now on, or none any more."""
        now, before = time.monotonic(), self._since
        began, parts = (now, 0) if before is None else (before[0], before[2] + 1)
        self._since = None if done else (began, now, parts)

    @property
    def waited(self) -> float:
        """Seconds for which a part of a large message has not come, or by which all of it is behind
        `PACE`: crumbs are no progress.
        """
        since = self._since
        if since is None:
            return 0.0
        (began, last, parts), now = since, time.monotonic()
        return max(now - last, now - began - parts * PART / PACE)


def slots() -> threading.Semaphore:
    """Room for the small messages of one machine."""
    return threading.Semaphore(MOST_SMALL)


def arrival(inbox: Inbox, names: Collection[str]) -> Deliver:
    """What puts messages for these parties into an inbox, and lets go of all others."""

    def deliver(to: str, data: memoryview, done: Callable[[], None]) -> None:
        if to in names:
            inbox.put(Arrived(to, data), done)
        else:
            done()

    return deliver


def _once(taken: threading.Semaphore) -> Callable[[], None]:
    """Gives a place back, once however often it is called."""
    left = [taken]

    def done() -> None:
        if left:
            left.pop().release()

    return done


def _nothing() -> None:
    return None
