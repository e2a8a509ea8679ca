"""What both ends of a session agree on: the path, how a connection is kept, and the words for how
it ends.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import grpc

from secure_fl.engines.session.frames import LARGEST_FRAME, VERSION
from secure_fl.engines.session.link import CLOSED
from secure_fl.engines.session.tls import Pem

METHOD, PROBE = "/secure_fl.session/stream", "/secure_fl.session/probe"
VERSION_KEY, FEDERATION_KEY = "secure-fl-version", "secure-fl-federation"
ALIVE, ANSWER = 5.0, 15.0
"""Seconds after which a silent connection is asked whether it is there, and for an answer. What is
on its way goes before the answer: a frame and a window, 12 seconds at 64 kB/s.
"""
_WINDOW = 1 << 19
"""Bytes that a stream may send ahead of its reader, beside the frame that is read."""


class Word(StrEnum):
    """Why a machine can no longer be reached."""

    CLOSED = CLOSED
    """the other end has ended its work"""
    LOST = "lost"
    """the connection broke, or the other process was killed"""
    REFUSED = "refused"
    """the certificate is not on the coordinator's list, or too much is asked of the server"""
    REVOKED = "revoked"
    """the certificate was taken from that list"""
    EXPIRED = "expired"
    """the certificate is past its time"""
    REPLACED = "replaced"
    """the same site has come back on another stream"""
    STALLED = "stalled"
    """a message was begun, and no part of it came for too long"""
    SLOW = "slow"
    """too much waits for a reader"""
    MALFORMED = "malformed"
    """something came that is no frame"""
    BUSY = "busy"
    """another site measures its way just now"""
    VERSION = "other-version"
    """the other end speaks another version of this protocol"""
    FEDERATION = "other-federation"
    """the other end belongs to another federation"""
    UNREACHABLE = "unreachable"
    """nobody answers at the address"""
    UNKNOWN = "unknown-address"
    """the name of the machine has no address"""
    CERTIFICATE = "certificate"
    """one end does not trust the other's certificate, and hung up; or this one's files are damaged
    """


_SAID = {
    Word.UNKNOWN: ("resol", "lookup"),
    # a server that does not trust a certificate hangs up, and says nothing
    Word.CERTIFICATE: ("handshake", "verification", "socket closed"),
}
"""What gRPC's words for a connection that did not come about have in them."""


def options(*, server: bool) -> list[tuple[str, int]]:
    """Of a channel."""
    both = {
        "grpc.max_receive_message_length": LARGEST_FRAME,
        "grpc.max_send_message_length": LARGEST_FRAME,
        "grpc.http2.lookahead_bytes": _WINDOW,
        "grpc.http2.bdp_probe": 0,
        "grpc.keepalive_time_ms": int(1000 * ALIVE),
        "grpc.keepalive_timeout_ms": int(1000 * ANSWER),
        # newer versions wait for a minute else, whatever is said above
        "grpc.http2.ping_timeout_ms": int(1000 * ANSWER),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
    }
    if server:
        more = {
            # a second process must not take half of the connections
            "grpc.so_reuseport": 0,
            "grpc.http2.min_ping_interval_without_data_ms": 1000,
            "grpc.http2.min_recv_ping_interval_without_data_ms": 1000,
            "grpc.server_handshake_timeout_ms": 10_000,
            "grpc.max_concurrent_streams": 2,
        }
    else:
        # an address is looked up, and tried, anew each time
        more = {"grpc.use_local_subchannel_pool": 1, "grpc.dns_min_time_between_resolutions_ms": 0}
    return list((both | more).items())


def opening(federation: str) -> tuple[tuple[str, str], ...]:
    """What a site says first."""
    return ((VERSION_KEY, str(VERSION)), (FEDERATION_KEY, federation))


def channel_to(address: str, pem: Pem) -> Any:
    """A site's channel to a server; not dialled yet, and to be closed."""
    credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
    return grpc.secure_channel(address, credentials, options(server=False))


def why_ended(call: Any, *, up: bool) -> Word:
    """From what gRPC says of a site's call that has ended.

    Args:
        up: whether the server had answered it.
    """
    code, text = call.code(), call.details() or ""
    if text in set(Word):
        return Word(text)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return Word.VERSION
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Word.REFUSED
    if up:
        return Word.LOST
    for word, parts in _SAID.items():
        if any(part in text.lower() for part in parts):
            return word
    return Word.UNREACHABLE
