"""Parties behind a pipe, in a process of their own: bytes with their length before them, both ways.

A process is started afresh (nothing is inherited but its pipes), makes its parties from a function
that is named and bytes that it is given, and takes one message at a time: the next is sent once it
has said that the last is done, and what it sends waits in the pipe until it is read. So a slow
reader slows its writers down, and no queue grows.

While it works it may ask whoever started it, and waits for the answer.

Guarantee: nothing is pickled; a process that ends, or is killed, is silent from then on, as a party
is whose machine is lost. It ends, in the middle of whatever it does, with who started it; Ctrl-C
is for that one alone.
Assumes: the pipes are the operating system's own, between two processes of one user.
Not covered: who may read the memory of either process.
"""

from __future__ import annotations

import math
import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from enum import IntEnum
from importlib import import_module

from secure_fl.errors import TrainingError
from secure_fl.federation.parties.party import Message, Party

_HEAD = struct.Struct(">QB")
_STATUS = struct.Struct(">d?")
_NAME = struct.Struct(">B")
_CHUNK = 1 << 20
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from secure_fl.engines.pipes import serve; serve()"
)
_PATIENCE = 10.0
_HERE = 0
"""What a process of parties reads: its standard input."""
Ask = Callable[[bytes], memoryview]
"""Asks whoever started the process, and waits for the answer."""
Make = Callable[[bytes, Ask], Sequence[Party]]
"""What makes the parties of a process."""


class Kind(IntEnum):
    """What a frame is."""

    MAKE = 0
    GIVE = 1
    TICK = 2
    SENT = 3
    DONE = 4
    ASK = 5
    ANSWER = 6


class Remote:
    """A process with parties in it; a `Host`.

    Args:
        make: `package.module:function`, which makes them; importable in a process of its own.
        facts: what the function is given.
        asked: answers what the process asks while it works.

    Attributes:
        busy: whether it works on a message.
        alive: whether it can still be heard.
        over: whether its parties wait for nothing more.
    """

    def __init__(
        self, make: str, facts: bytes, asked: Callable[[memoryview], bytes] = bytes
    ) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", _START, make]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603 # our own interpreter and module
            command, stdin=pipe, stdout=pipe, bufsize=0, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._names: Sequence[str] = ()
        self._make, self._asked, self.busy, self.alive = make, asked, True, True
        self.over, self.due = False, None
        self._tell(Kind.MAKE, facts)

    due: float | None
    """When one of its parties is to be told the time."""

    @property
    def names(self) -> Sequence[str]:
        """Of its parties; waits until they are made, so start all processes before asking any.
        Raises TrainingError: the process ended before it had them.
        """
        while self.busy and not self._names:
            self.collect()
        if not self._names:
            self.close()
            remedy = "read what it wrote to standard error"
            raise TrainingError("did not start", "process", self._make, remedy)
        return self._names

    def fileno(self) -> int:
        """What to wait for: there is something to read."""
        return self._out

    def give(self, to: str, data: bytes | memoryview) -> None:
        self._tell(Kind.GIVE, _named(to), data)

    def tick(self, now: float) -> None:
        if self.due is not None and self.due <= now:
            self._tell(Kind.TICK, struct.pack(">d", now))

    def collect(self) -> list[tuple[str, Message]]:
        """The next message of its parties, if there is one; waits where it is busy."""
        if not self.busy:
            return []
        try:
            kind, data = _read(self._out)
        except EOFError:
            self._lost()
            return []
        if kind == Kind.ASK:
            self._tell(Kind.ANSWER, self._asked(data))
            return []
        if kind == Kind.SENT:
            sender, rest = _name(data)
            to, body = _name(rest)
            return [(sender, Message(to, body))]
        due, self.over = _STATUS.unpack_from(data)
        self.due, self.busy = (None if math.isnan(due) else due), False
        self._names = self._names or tuple(bytes(data[_STATUS.size :]).decode("ascii").split())
        return []

    def kill(self) -> None:
        """End it at once, as a machine does that loses power."""
        self._process.kill()

    @property
    def status(self) -> int | None:
        """How it ended, once it has: its exit status, or minus the signal that ended it."""
        try:
            return None if self.alive else self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Let it end, and wait for that."""
        if not self._process.stdin or not self._process.stdout:
            return
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _tell(self, kind: Kind, *parts: bytes | memoryview) -> None:
        if not self.alive:
            return
        try:
            _write(self._in, kind, *parts)
            self.busy = True
        except BrokenPipeError:
            self._lost()

    def _lost(self) -> None:
        self.alive = self.busy = False
        self.due = None


def wait_for(busy: Sequence[Remote]) -> Remote:
    """The first of busy processes that has something to say."""
    return select.select(busy, [], [])[0][0]


def serve() -> None:
    """A process of parties: reads from standard input until it is closed, and answers."""
    import torch

    torch.set_num_threads(1)
    here, there = _HERE, os.dup(1)
    os.dup2(2, 1)  # what anything prints must not get between the frames
    threading.Thread(target=end_with_starter, daemon=True).start()

    def ask(question: bytes) -> memoryview:
        _write(there, Kind.ASK, question)
        return _read(here)[1]

    module, function = sys.argv[1].split(":")
    make: Make = getattr(import_module(module), function)
    parties: dict[str, Party] = {}
    while True:
        try:
            kind, data = _read(here)
        except EOFError:
            return
        sent: list[tuple[str, Message]] = []
        if kind == Kind.MAKE:
            parties = {party.name: party for party in make(bytes(data), ask)}
        elif kind == Kind.TICK:
            [now] = struct.unpack(">d", data)
            for party in parties.values():
                sent += [(party.name, message) for message in party.tick(now)]
        else:
            to, body = _name(data)
            sent = [(to, message) for message in parties[to].receive(body)]
        for sender, message in sent:
            _write(there, Kind.SENT, _named(sender), _named(message.to), message.data)
        _write(there, Kind.DONE, _status(list(parties.values())))


def end_with_starter() -> None:
    """End this process when the other end of its pipe is closed, whatever it is doing: for a thread
    of its own, which a fork has to begin anew.
    """
    closed = select.poll()
    closed.register(_HERE, 0)
    closed.poll()
    os._exit(0)


def _status(parties: Sequence[Party]) -> bytes:
    dues = [party.due for party in parties if party.due is not None]
    over, names = all(party.over for party in parties), " ".join(party.name for party in parties)
    return _STATUS.pack(min(dues, default=math.nan), over) + names.encode("ascii")


def _named(name: str) -> bytes:
    return _NAME.pack(len(name)) + name.encode("ascii")


def _name(data: memoryview) -> tuple[str, memoryview]:
    end = _NAME.size + data[0]
    return bytes(data[_NAME.size : end]).decode("ascii"), data[end:]


def _write(pipe: int, kind: Kind, *parts: bytes | memoryview) -> None:
    """A frame, whole."""
    whole = sum(len(part) for part in parts)
    for part in (_HEAD.pack(whole, kind), *parts):
        left = memoryview(part)
        while left:
            left = left[os.write(pipe, left[:_CHUNK]) :]


def _read(pipe: int) -> tuple[Kind, memoryview]:
    """A frame, and not a byte more. Raises EOFError: the other end is closed, maybe within one."""
    length, kind = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    return Kind(kind), _exactly(pipe, length)


def _exactly(pipe: int, length: int) -> memoryview:
    data = memoryview(bytearray(length))
    start = 0
    while start < length:
        got = os.readv(pipe, [data[start : start + _CHUNK]])
        if not got:
            raise EOFError
        start += got
    return data.toreadonly()
