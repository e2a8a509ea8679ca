"""How fast the way between a site and the server is: bytes that mean nothing go to and fro on a
channel such as a session's, with the same certificates and windows.

    request    bytes that are wanted u32 | any bytes     0 of those that are followed by more
    answer     as many bytes as are wanted, in frames of at most 256 KiB

Either way bursts are sent, each a few times as long as the one before, until one takes long enough
to be timed: a slow way carries some kilobytes, and a fast one less than 2 MB.

Guarantee: whatever a site asks, a probe costs the server at most `MOST` bytes each way, `SECONDS`,
one thread and the memory of one frame.
Not covered: what the way carries while others use it too.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import grpc

from secure_fl.engines.session.channels import PROBE, Word, channel_to, opening, why_ended
from secure_fl.engines.session.frames import PART
from secure_fl.engines.session.tls import TlsFiles

MOST, SECONDS = 1 << 21, 10.0
"""Bytes each way, and seconds, that a probe may take."""
_WANTED = struct.Struct(">I")
_LEAST = 1 << 10
"""Bytes that a request counts for at least."""
_BURSTS = tuple(1 << bits for bits in (13, 15, 17, 19, 20))
_ENOUGH, _PINGS = 0.4, 4
"""Seconds of a burst after which none follows; and how often the way there and back is timed."""


@dataclass(frozen=True)
class Measured:
    """What a way carries.

    Attributes:
        round_trip: seconds there and back.
        out, into: bytes a second, from the site to the server and back.
    """

    round_trip: float
    out: float
    into: float


def answers(requests: Iterator[bytes]) -> Iterator[bytes]:
    """What a server says to a probe, until it ends or would take more than it may."""
    taken = given = 0
    for request in requests:
        wanted = int(_WANTED.unpack_from(request)[0]) if len(request) >= _WANTED.size else MOST
        taken, given = taken + max(_LEAST, len(request)), given + wanted
        if max(taken, given) > MOST:
            return
        for start in range(0, wanted, PART):
            yield bytes(min(PART, wanted - start))


def measured(address: str, tls: TlsFiles, federation: str) -> Measured | Word:
    """Measure the way to a server; the word for why that was not possible. It takes seconds.

    Args:
        address: host and port.
        tls: of this end.
        federation: its name.

    Raises:
        FileError, SecureSumError: as of `TlsFiles.read`.
    """
    requests = SimpleQueue[bytes | None]()
    with channel_to(address, tls.read()) as channel:
        call = channel.stream_stream(PROBE)(
            iter(requests.get, None), metadata=opening(federation), timeout=SECONDS
        )
        way = _Way(call, requests.put)
        try:
            return way.measured()
        except StopIteration:
            return Word.REFUSED
        except grpc.RpcError:
            late = call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            return Word.SLOW if late and way.up else why_ended(call, up=way.up)
        finally:
            requests.put(None)
            with suppress(grpc.RpcError):
                call.cancel()


@dataclass
class _Way:
    """A probe that is under way; `up` once the server has answered."""

    call: Any
    put: Callable[[bytes], None]
    up: bool = False

    def measured(self) -> Measured:
        trip = min([self._took(0, 1) for _ in range(_PINGS)])  # no generator: `next` may end it
        out = self._rate(lambda size: self._took(size, 1) - trip)
        return Measured(trip, out, self._rate(lambda size: self._took(0, size) - trip))

    def _rate(self, took: Callable[[int], float]) -> float:
        rate = 0.0
        for size in _BURSTS:
            seconds = max(took(size), 1e-6)
            rate = size / seconds
            if seconds >= _ENOUGH:
                break
        return rate

    def _took(self, size: int, wanted: int) -> float:
        """Seconds until as many bytes have come as are wanted, after so many have gone."""
        began, got = time.perf_counter(), 0
        for start in range(0, size + 1, PART):
            more = start + PART <= size
            part = bytes(min(PART, size - start))
            self.put(_WANTED.pack(0 if more else wanted) + part)
        while got < wanted:
            got += len(next(self.call))
            self.up = True
        return time.perf_counter() - began
