"""A way between two ends that a test can cut, stop, slow down and lead elsewhere."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

_PIECE = 1 << 12


class Proxy:
    """Passes TCP connections on, each to where the server is then.

    Args:
        target: the server's port now; 0 where there is none.
        rate: bytes a second each way; 0 for as many as come.
        delay: seconds that each piece takes.

    Attributes:
        port: where to dial.
        stopped: while it is set nothing passes, and nobody is told.
        down: while it is set nobody is connected.
    """

    def __init__(self, target: Callable[[], int], *, rate: float = 0, delay: float = 0) -> None:
        self._target, self._rate, self._delay = target, rate, delay
        self._listener = socket.socket()
        self._narrow(self._listener)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.stopped, self.down = threading.Event(), threading.Event()
        self._lock, self._open = threading.Lock(), list[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection that there is."""
        with self._lock:
            broken, self._open = self._open, []
        for one in broken:
            _close(one)

    def close(self) -> None:
        """End."""
        self.down.set()
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.socket()
                try:
                    if self.down.is_set():
                        raise ConnectionError
                    self._narrow(far)
                    far.connect(("127.0.0.1", self._target()))
                except OSError:
                    _close(near)
                    _close(far)
                    continue
                with self._lock:
                    self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _narrow(self, one: socket.socket) -> None:
        """What waits for a narrow way does so at its sender, in packets of a usual size."""
        if self._rate:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        """A narrow and long way: what was read is under way for as long as that takes."""
        way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        threading.Thread(target=_arrive, args=(way, to), daemon=True).start()
        free = time.monotonic()
        with suppress(OSError):
            while data := source.recv(_PIECE if self._rate else 1 << 16):
                while self.stopped.is_set():
                    time.sleep(0.01)
                if self._rate:
                    free = max(free, time.monotonic()) + len(data) / self._rate
                    time.sleep(max(0.0, free - time.monotonic()))
                way.put((time.monotonic() + self._delay, data))
        way.put((time.monotonic() + self._delay, b""))


def _arrive(way: SimpleQueue[tuple[float, bytes]], to: socket.socket) -> None:
    """Hand on what is under way, each piece when its time has come."""
    with suppress(OSError):
        while True:
            due, data = way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            to.sendall(data)
    _close(to)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
