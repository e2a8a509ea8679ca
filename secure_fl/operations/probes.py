"""`/healthz`, `/readyz` and, where there are numbers, `/metrics`: a small server of its own port.

**Guarantee.** It answers GET of these three paths, whoever asks, and takes nothing in. A slow or
greedy reader holds one of a few places for a few seconds.

**Not covered.** Who reads: it listens on this machine's own address unless its operator says
otherwise, and speaks no TLS.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from secure_fl.errors import FileError
from secure_fl.operations.view import Observer, View

_PLACES, _PATIENCE = 8, 5.0
_PAGE = "text/plain; version=0.0.4; charset=utf-8"


class Health(Observer):
    """Whether a process lives, and is ready.

    Args:
        quiet: seconds for which the driver's loop may stand still: a party that trains takes one
            message as long as that takes.
        clock: seconds that only grow.
    """

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._clock = quiet, clock
        self._last, self._turned = clock(), False
        self._ready = False

    def turned(self, view: View) -> None:
        self._last, self._turned = self._clock(), True
        self._ready = view.role == "server" or bool(view.there)

    @property
    def age(self) -> float:
        """Seconds since the loop has turned, or since there is one."""
        return self._clock() - self._last

    @property
    def alive(self) -> bool:
        """Whether the loop turns."""
        return self.age <= self._quiet

    @property
    def ready(self) -> bool:
        """Whether a server listens, or a site is connected."""
        return self.alive and self._turned and self._ready


class Probes:
    """The server of these pages. Raises FileError: the port cannot be had.

    Args:
        health: is asked.
        page: what Prometheus reads; None where there are no numbers.
        host: address to listen on.
        port: of it; 0 for any that is free, which `port` tells then.
    """

    def __init__(
        self,
        health: Health,
        page: Callable[[], bytes] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        def answer(path: str) -> tuple[int, bytes]:
            if path == "/metrics" and page is not None:
                return 200, page()
            if path == "/metrics":
                return 501, b"no numbers: pip install 'secure-fl[metrics]'\n"
            holds = {"/healthz": health.alive, "/readyz": health.ready}.get(path)
            if holds is None:
                return 404, b"there are /healthz, /readyz and /metrics\n"
            return (200, b"ok\n") if holds else (503, b"no\n")

        try:
            self._server = _Server((host, port), _handler(answer))
        except OSError as error:
            problem = f"cannot be listened on: {error.strerror or type(error).__name__}"
            remedy = "set another port in operations.toml, or end who has this one"
            raise FileError(problem, "operations.port", f"{host}:{port}", remedy) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """One thread a request, and not more than there are places."""

    daemon_threads, block_on_close = True, False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._places = threading.BoundedSemaphore(_PLACES)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=_PATIENCE):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # a time-out of the socket's begins anew with each letter
        until = threading.Timer(_PATIENCE, _hang_up, (request,))
        until.daemon = True
        until.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            until.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away is nobody's business."""


def _hang_up(request: Any) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _handler(answer: Callable[[str], tuple[int, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE
        server_version, sys_version = "secure-fl", ""

        def do_GET(self) -> None:
            status, body = answer(self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", _PAGE)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nobody wants a line for each probe."""

    return Handler
