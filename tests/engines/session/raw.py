"""A site that sends whatever a test wants, with a valid certificate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc

from secure_fl.engines.session.channels import METHOD, opening, options
from secure_fl.engines.session.tls import TlsFiles


class Raw:
    """One call; `send` takes frames, None half-closes."""

    def __init__(self, channel: Any, *, hasty: bool = False) -> None:
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()
        self.call = channel.stream_stream(METHOD)(
            iter(self._frames.get, None), metadata=opening("toy")
        )
        self.why, self.ended = "", threading.Event()
        self.greeting = b"" if hasty else next(self.call)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, *frames: bytes | None) -> None:
        for frame in frames:
            self._frames.put(frame)

    def _read(self) -> None:
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            self.why = str(self.call.details())
        self.ended.set()


@contextmanager
def raw(files: TlsFiles, port: int, *, hasty: bool = False) -> Iterator[Raw]:
    """A call; one that is hasty does not wait for the greeting."""
    pem = files.read()
    credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
    more = [("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(
        f"localhost:{port}", credentials, options(server=False) + more
    ) as channel:
        made = Raw(channel, hasty=hasty)
        try:
            yield made
        finally:
            made.send(None)
            made.call.cancel()
