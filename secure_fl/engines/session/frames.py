"""Messages in frames: what goes over a session's stream, in either direction.

    greeting   0 | version u16 | the federation's name         the server's first frame alone
    whole      1 | length u8, recipient | message              of at most 64 KiB
    begin      2 | length u8, recipient | bytes in all u64     of a larger one, which follows:
    part       3 | place of its first byte u64 | bytes         256 KiB, but for the last
    farewell   4                                               nothing more is said

Parts of a message come one after the other and nothing comes between them. Nobody is told who
speaks: that is signed inside.

Guarantee: whatever the bytes, nothing but `RefusedError` is raised; no message is larger than the
reader allows, and no memory is taken for one before the reader says that there is room. A message
is put together in one piece of memory, and cut from the one that it is.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from secure_fl.crypto.identities import LONGEST_NAME
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import malformed
from secure_fl.federation.parties.party import Message

VERSION = 1
SMALL, PART = 1 << 16, 1 << 18
"""Bytes of the largest message that goes in one frame, and of a part of a larger one."""
LARGEST_FRAME = PART + 9
FAREWELL = b"\x04"
_GREETING, _WHOLE, _BEGIN, _PART = range(4)
_HEAD, _VERSION, _NUMBER = struct.Struct(">BB"), struct.Struct(">BH"), struct.Struct(">BQ")
_SIZE = struct.Struct(">Q")

Deliver = Callable[[str, memoryview, Callable[[], None]], None]
"""Takes a message by its recipient; whoever is done with it calls the third."""


class Room(Protocol):
    """Where a reader has place for messages."""

    def take(self, size: int) -> Callable[[], None]:
        """Wait until there is room for a message of that size; what gives it back."""

    def progress(self, *, done: bool = False) -> None:
        """A part of a large message is waited for from now on, or none any more."""


def greeting(federation: str) -> bytes:
    """The server's first frame."""
    return _VERSION.pack(_GREETING, VERSION) + federation.encode("ascii")


def read_greeting(frame: bytes) -> tuple[int, str]:
    """Version and the federation's name. Raises RefusedError: `malformed`."""
    if len(frame) < _VERSION.size or frame[0] != _GREETING:
        raise malformed("frame", "no greeting")
    return int(_VERSION.unpack_from(frame)[1]), _text(frame[_VERSION.size :])


def cut(message: Message) -> Iterator[bytes]:
    """A message's frames, each made when it is asked for."""
    name, data = message.to.encode("ascii"), memoryview(message.data).cast("B")
    if len(data) <= SMALL:
        yield b"".join((_HEAD.pack(_WHOLE, len(name)), name, data))
        return
    yield b"".join((_HEAD.pack(_BEGIN, len(name)), name, _SIZE.pack(len(data))))
    for start in range(0, len(data), PART):
        yield b"".join((_NUMBER.pack(_PART, start), data[start : start + PART]))


def carry(frames: Iterator[bytes], most: int, room: Room, deliver: Deliver) -> bool:
    """Deliver what comes in frames until they end; whether there was a farewell. Raises
    RefusedError: something else comes, or a message that is too large, or half of one.

    Args:
        frames: as they arrive.
        most: bytes of the largest message.
        room: is asked before memory is taken.
        deliver: takes each message.
    """
    # no name is kept here for a message: it would live until the next one comes
    for frame in frames:
        if frame == FAREWELL:
            return True
        kind, to, rest = _opened(frame)
        if kind == _WHOLE:
            deliver(to, rest, room.take(len(rest)))
            continue
        total = _announced(rest, most)
        done = room.take(total)
        try:
            deliver(to, _assembled(frames, total, room), done)
        except BaseException:
            done()
            raise
    return False


def _assembled(frames: Iterator[bytes], total: int, room: Room) -> memoryview:
    """The parts of one message in one piece; its memory is used as they arrive."""
    # pages of its own go back at once; what many threads free in a heap stays there, 10 MB a site
    data = memoryview(mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    try:
        for start in range(0, total, PART):
            room.progress()
            frame = next(frames, b"")
            end = min(start + PART, total)
            if len(frame) != _NUMBER.size + end - start:
                raise RefusedError(
                    Reason.WRONG_LENGTH, "no such part", "frame", len(frame), "send every part"
                )
            if _NUMBER.unpack_from(frame) != (_PART, start):
                raise malformed("frame", "another part was to come")
            data[start:end] = memoryview(frame)[_NUMBER.size :]
    finally:
        room.progress(done=True)
    return data.toreadonly()


def _opened(frame: bytes) -> tuple[int, str, memoryview]:
    """Kind, recipient, and what follows, of a frame with which a message begins."""
    if len(frame) < _HEAD.size:
        raise malformed("frame", "shorter than its head")
    kind, length = _HEAD.unpack_from(frame)
    start = _HEAD.size + length
    if kind not in (_WHOLE, _BEGIN) or not 0 < length <= LONGEST_NAME or start > len(frame):
        raise malformed("frame", "begins no message")
    if kind == _WHOLE and len(frame) - start > SMALL:
        raise malformed("frame", "too large to be whole")
    return kind, _text(frame[_HEAD.size : start]), memoryview(frame)[start:]


def _announced(rest: memoryview, most: int) -> int:
    if len(rest) != _SIZE.size:
        raise malformed("frame", "no size")
    total = int(_SIZE.unpack(rest)[0])
    if not SMALL < total <= most:
        remedy = "send what the plan allows"
        raise RefusedError(Reason.WRONG_LENGTH, "no size of a message", "frame", total, remedy)
    return total


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise malformed("frame", "a name is ASCII") from None
