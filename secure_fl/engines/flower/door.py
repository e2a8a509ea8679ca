"""The door of a site's process: a Unix socket, by which Flower's short-lived app reaches it.

One connection a question. `session` asks to begin and waits for the end; `exchange` brings what the
server says to the site's parties and takes along what they have said since. A question is a head in
JSON and the bytes of messages, each part with its length in front.

Guarantee: only the site's own user comes in (socket 0600 in a folder 0700); what comes in is no
more than the plan lets a server say at once, and never unpickled; an app that dies, or a second
one, does not disturb the process.
Not covered: what the server says is anybody's, and parties judge it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic_core import to_json

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.link import Arrived, Back, Event
from secure_fl.errors import EngineError
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import route
from secure_fl.files import make_folder, parse_json

DOOR = "door"
"""Name of the socket in a site's folder."""
ABSENT, BUSY = "absent", "busy"
MOST = 1 << 32
"""Bytes of the messages of an exchange, where nothing is known of the plan."""
_MOST_HEAD, _MOST_FRAMES, _MOST_ASKING = 1 << 20, 1 << 14, 8
_MOST_IN = 32
"""Connections that are looked at at a time; others wait outside."""
_PART = 1 << 20
_READ, _GLANCE, _PAUSE, _LONGEST_PATH = 60.0, 0.5, 0.05, 100
_SILENCE = 120.0
"""Seconds without an exchange after which the server counts as gone; it asks every 30."""
_PARTING, _DELIVERED = 30.0, 5.0
"""Seconds for an exchange in which to say farewell, once the federation has ended, and for that to
leave this machine."""
_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Question:
    """What an app asks.

    Attributes:
        kind: to begin, or to exchange messages.
        word: of the federation; in an exchange, of the site.
        epoch: another one than before: the server has lost what it was told.
        got: number of the last answer that the server has.
        room: bytes of messages that the answer may carry.
        to: parties that the messages are for.
        sizes: bytes of each message, which follow.
    """

    kind: Literal["session", "exchange"]
    word: str = ""
    epoch: str = ""
    got: int = 0
    room: int = 0
    to: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the site's process says.

    Attributes:
        code: how it ended, as a word; empty where all is well.
        number: of this answer.
        ready: bytes of messages that found no room.
        sizes: bytes of each message, which follow.
        farewell: whether the site has ended its work, and says nothing more.
    """

    code: str = ""
    number: int = 0
    ready: int = 0
    sizes: tuple[int, ...] = ()
    farewell: bool = False


@dataclass
class Asked:
    """A question that waits for its answer."""

    question: Question
    frames: list[bytes] = field(repr=False)
    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer = Answer(ABSENT)
    said: Sequence[bytes | memoryview] = ()

    def reply(self, answer: Answer, said: Sequence[bytes | memoryview] = ()) -> None:
        """Let it go."""
        self.answer, self.said = answer, said
        self.done.set()


class Door:
    """The site's side.

    Args:
        folder: of the site; the socket is in it.
        most: bytes of the messages of one exchange.

    Raises:
        EngineError: another process has the door.
        FileError: the folder cannot be made.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        make_folder(folder, tighten=True)
        self._path, self._closed, self._most = folder / DOOR, False, most
        self._asked: dict[str, deque[Asked]] = {"session": deque(), "exchange": deque()}
        self._here = threading.Condition()
        self._places = threading.BoundedSemaphore(_MOST_IN)
        if ask(folder, None) is not None:
            remedy = "end the process that runs this site, or use it"
            raise EngineError("belongs to a process that runs", DOOR, str(self._path), remedy)
        self._socket = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with _reached(self._path) as name:
            self._socket.bind(name)
        self._path.chmod(0o600)
        self._socket.listen(_MOST_ASKING)
        threading.Thread(target=self._listen, daemon=True).start()

    def session(self, timeout: float) -> str | None:
        """Wait for an app that asks to begin; the federation's word, as the server says it. None
        where nobody asks for so many seconds.
        """
        with self._here:
            found = self._first("session", timeout)
        return None if found is None else found.question.word

    def finish(self, code: str) -> None:
        """Tell all apps that wait for the end how it ended: a word, empty where all is well."""
        with self._here:
            for asked in self._asked["session"]:
                asked.reply(Answer(code[:64]))
            self._asked["session"].clear()

    def exchange(self, timeout: float) -> Asked | None:
        """The next exchange, which is to be answered; None where none comes for so long."""
        with self._here:
            found = self._first("exchange", timeout)
            if found is not None:
                self._asked["exchange"].popleft()
            return found

    def close(self) -> None:
        """Shut the door; whoever waits is told that nobody is there."""
        with self._here:
            self._closed = True
            for waiting in self._asked.values():
                for asked in waiting:
                    asked.done.set()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _first(self, kind: str, timeout: float) -> Asked | None:
        until = time.monotonic() + timeout
        while not self._asked[kind]:
            left = until - time.monotonic()
            if left <= 0 or self._closed:
                return None
            self._here.wait(left)
        return self._asked[kind][0]

    def _listen(self) -> None:
        while not self._closed:
            if not self._places.acquire(timeout=_GLANCE):
                continue  # who waits outside comes in when somebody has gone
            try:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            except (OSError, RuntimeError):  # no handle or no thread is left, or the door is shut
                self._places.release()
                time.sleep(_PAUSE)

    def _answer(self, connection: socket.socket) -> None:
        """One question, to its end."""
        try:
            self._heard(connection)
        finally:
            self._places.release()

    def _heard(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EngineError):
            connection.settimeout(_READ)
            question = parse_json(
                _read(connection, _MOST_HEAD), Question, error=EngineError, **_FIELD
            )
            asked = Asked(question, _read_frames(connection, question.sizes, self._most))
            with self._here:
                waiting = self._asked[question.kind]
                if len(waiting) >= _MOST_ASKING or self._closed:
                    asked.reply(Answer(ABSENT if self._closed else BUSY))
                else:
                    waiting.append(asked)
                    self._here.notify_all()
            while not asked.done.wait(_GLANCE):
                if _gone(connection):
                    break
            with self._here, contextlib.suppress(ValueError):
                waiting.remove(asked)
            _write(connection, asked.answer, asked.said)


class DoorLink:
    """A `Link` of a site's parties, whose peer is the server.

    Args:
        door: by which exchanges come; `close` shuts it.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._events, self._outbox = deque[Event](), deque[bytes | memoryview]()
        self._open: Asked | None = None
        self._epoch, self._number, self._heard, self._ended = "", 0, -_SILENCE, False

    @property
    def peers(self) -> frozenset[str]:
        """The server, where it has asked not long ago."""
        fresh = self._open is not None or time.monotonic() - self._heard < _SILENCE
        return frozenset(("server",)) if fresh else frozenset()

    def send(self, sender: str, message: Message) -> None:
        """For the next answer."""
        if self.peers:
            self._outbox.append(message.data)

    def receive(self, seconds: float) -> Event | None:
        """The next event. What was said since an exchange came goes when its last event is done."""
        if not self._events:
            self._answer()
            asked = self._door.exchange(seconds)
            if asked is not None:
                self._take(asked)
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Say farewell in the exchange that is open, and shut the door; where the federation has
        ended, wait for one, so that the server does not wait for this site.
        """
        if self._open is None and self._ended and self.peers:
            self._open = self._door.exchange(_PARTING)
        said = self._open is not None
        self._answer(farewell=True)
        if said and self._ended:
            time.sleep(_DELIVERED)
        self._door.finish("")
        self._door.close()

    def _take(self, asked: Asked) -> None:
        question, self._open, self._heard = asked.question, asked, time.monotonic()
        if (question.epoch, question.got) != (self._epoch, self._number):
            # one of us has lost something: all that is due is said again after this
            self._epoch, self._number = question.epoch, question.got
            self._outbox.clear()
            self._events.append(Back("server"))
        for to, frame in zip(question.to, asked.frames, strict=False):
            self._ended |= ends(frame)
            self._events.append(Arrived(to, frame))

    def _answer(self, *, farewell: bool = False) -> None:
        asked, self._open = self._open, None
        if asked is None:
            return
        said, room = list[bytes | memoryview](), asked.question.room
        while self._outbox and len(self._outbox[0]) <= room and len(said) < _MOST_FRAMES:
            room -= len(self._outbox[0])
            said.append(self._outbox.popleft())
        self._number, self._heard = self._number + 1, time.monotonic()
        left = sum(map(len, self._outbox))
        asked.reply(Answer("", self._number, left, farewell=farewell), said)


def ends(data: bytes | memoryview) -> bool:
    """Whether a message says that the federation has ended."""
    try:
        return route(data).phase == Phase.END
    except RefusedError:
        return False


_FIELD = {"field": DOOR, "value": "a message", "remedy": "use this version on both sides of it"}


def ask(
    folder: Path, question: Question | None, frames: Sequence[bytes | memoryview] = ()
) -> tuple[Answer, list[bytes]] | None:
    """Ask the site's process, and wait for as long as it takes; None where there is none, or it
    ended before it answered. Raises EngineError: it answers nonsense.

    Args:
        folder: of the site.
        question: with no `sizes`; None only finds out whether somebody is there.
        frames: messages, one for each of `to`.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with _reached(folder / DOOR) as name:
                connection.connect(name)
            if question is None:
                return Answer(), []
            _write(connection, question, frames)
            answer = parse_json(_read(connection, _MOST_HEAD), Answer, error=EngineError, **_FIELD)
            return answer, _read_frames(connection, answer.sizes, question.room)
        except OSError:
            return None


@contextlib.contextmanager
def _reached(path: Path) -> Iterator[str]:
    """A name of a socket that is short enough for the operating system (108 bytes on Linux)."""
    if len(os.fsencode(path)) < _LONGEST_PATH:
        yield str(path)
        return
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def _write(
    connection: socket.socket, head: Question | Answer, frames: Sequence[bytes | memoryview]
) -> None:
    data = to_json(asdict(head) | {"sizes": [len(frame) for frame in frames]})
    connection.sendall(_LENGTH.pack(len(data)) + data)
    for frame in frames:
        connection.sendall(frame)


def _read(connection: socket.socket, most: int) -> bytes:
    """A part with its length in front. Raises EngineError: it is too long; OSError: cut off."""
    length = _LENGTH.unpack(_exactly(connection, _LENGTH.size))[0]
    if length > most:
        raise EngineError("is too long", DOOR, length, str(_FIELD["remedy"]))
    return _exactly(connection, length)


def _read_frames(connection: socket.socket, sizes: Sequence[int], most: int) -> list[bytes]:
    if len(sizes) > _MOST_FRAMES or min(sizes, default=0) < 0 or sum(sizes) > most:
        raise EngineError("is too long", DOOR, sum(sizes), str(_FIELD["remedy"]))
    return [_exactly(connection, size) for size in sizes]


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts, left = list[bytes](), length
    while left:
        part = connection.recv(min(left, _PART))
        if not part:
            raise ConnectionError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _gone(connection: socket.socket) -> bool:
    """Whether the other side has hung up; it says nothing more while it waits."""
    look = select.poll()  # `select` takes no handle above 1023
    look.register(connection, select.POLLIN)
    return bool(look.poll(0))
