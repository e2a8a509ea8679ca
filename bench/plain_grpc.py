"""Plain gRPC with mutual TLS: a stream for each site, and nothing else; the floor beside which a
session is measured. Bytes are counted, and let go of.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc

from secure_fl.engines.session.tls import TlsFiles

METHOD = "/bench/stream"
PIECE = 1 << 20
END = b"end of message"
_KEEP_ALIVE = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
]


class PlainServer:
    """Says bytes on every stream, and waits for as many answers.

    Attributes:
        arrived: what came: how many bytes of a message, and from whom.
        lost: sites whose stream ended.
    """

    def __init__(self, tls: TlsFiles, sites: int) -> None:
        self.arrived: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self.lost: SimpleQueue[str] = SimpleQueue()
        self._said: dict[str, SimpleQueue[bytes | None]] = {}
        self._lock, self._here = threading.Lock(), threading.Semaphore(0)
        pem = tls.read()
        self._grpc = grpc.server(ThreadPoolExecutor(sites + 4), options=_KEEP_ALIVE)
        one = grpc.stream_stream_rpc_method_handler(self._serve)
        service, method = METHOD[1:].split("/")
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: one}),)
        )
        pair = [(pem.key, pem.certificate)]
        credentials = grpc.ssl_server_credentials(pair, pem.authority, True)
        self.port = int(self._grpc.add_secure_port("127.0.0.1:0", credentials))
        self._grpc.start()

    def wait_for(self, sites: int) -> None:
        """Until so many streams are there."""
        for _ in range(sites):
            assert self._here.acquire(timeout=120), "a site did not come"

    def say(self, data: bytes) -> None:
        """On every stream."""
        for said in list(self._said.values()):
            said.put(data)

    def close(self) -> None:
        """End all streams."""
        for said in list(self._said.values()):
            said.put(None)
        self._grpc.stop(1).wait()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        name = context.auth_context()["x509_common_name"][0].decode()
        said: SimpleQueue[bytes | None] = SimpleQueue()
        with self._lock:
            self._said[name] = said
        threading.Thread(target=self._read, args=(name, requests, said), daemon=True).start()
        self._here.release()
        yield from iter(said.get, None)

    def _read(self, name: str, requests: Iterator[bytes], said: SimpleQueue[bytes | None]) -> None:
        size = 0
        try:
            for piece in requests:
                if piece == END:
                    self.arrived.put((name, size))
                    size = 0
                else:
                    size += len(piece)
        except Exception:  # gRPC raises a bare one where a stream was cut
            said.put(None)
        self.lost.put(name)


def plain_site(port: int, tls: TlsFiles, blob: bytes) -> None:
    """Answer `small` by a few bytes and `large` by the blob, until the stream ends."""
    pem, said = tls.read(), SimpleQueue[bytes | None]()
    credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, _KEEP_ALIVE) as channel:
        for word in channel.stream_stream(METHOD)(iter(said.get, None)):
            if word == b"large":
                for start in range(0, len(blob), PIECE):
                    said.put(blob[start : start + PIECE])
            else:
                said.put(b"a few bytes")
            said.put(END)
    said.put(None)
