"""Frames hold what was put in, and nothing that anybody sends makes more of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session import frames
from secure_fl.engines.session.frames import LARGEST_FRAME, PART, SMALL, carry, cut
from secure_fl.federation.parties.party import Message

MOST = 3 * PART


class Rooms:
    """As much room as anybody asks for; `asked` has the sizes."""

    def __init__(self) -> None:
        self.asked, self.free = list[int](), 0

    def take(self, size: int) -> Callable[[], None]:
        self.asked.append(size)
        self.free -= 1
        return self._done

    def _done(self) -> None:
        self.free += 1

    def progress(self, *, done: bool = False) -> None:
        return None


def read(sent: list[bytes], rooms: Rooms | None = None) -> list[tuple[str, bytes]]:
    found = list[tuple[str, bytes]]()

    def deliver(to: str, data: memoryview, done: Callable[[], None]) -> None:
        found.append((to, bytes(data)))
        done()

    carry(iter(sent), MOST, rooms or Rooms(), deliver)
    return found


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1, SMALL, SMALL + 1, MOST]))))
def test_messages_come_out_as_they_went_in(sent: list[tuple[str, int]]) -> None:
    messages = [Message(to, np.arange(size, dtype=np.uint8).tobytes()) for to, size in sent]
    made = [frame for message in messages for frame in cut(message)]
    assert read(made) == [(one.to, bytes(one.data)) for one in messages]
    assert all(len(frame) <= LARGEST_FRAME for frame in made)


def test_a_message_is_cut_when_it_is_sent_and_not_before() -> None:
    data = bytearray(2 * PART)
    made = cut(Message("a", memoryview(data)))
    next(made)
    data[PART] = 7
    assert [frame[9] for frame in made] == [0, 7]


def whole() -> list[bytes]:
    return list(cut(Message("a", bytes(2 * PART + 5))))


WRONG: dict[str, list[bytes]] = {
    "nothing": [b""],
    "a kind": [b"\x01"],
    "of no kind": [b"\x09\x01a"],
    "to nobody": [b"\x01\x00"],
    "to a long name": [b"\x01\xff" + b"a" * 255],
    "to half a name": [b"\x01\x05ab"],
    "to a strange name": [b"\x01\x01\xff"],
    "too large to be whole": [b"\x01\x01a" + bytes(SMALL + 1)],
    "no size": [b"\x02\x01a"],
    "half a size": [b"\x02\x01a" + bytes(7)],
    "a size that is small": [b"\x02\x01a" + struct.pack(">Q", SMALL)],
    "a size that is too large": [b"\x02\x01a" + struct.pack(">Q", MOST + 1)],
    "a size beyond all": [b"\x02\x01a" + b"\xff" * 8],
    "a part of nothing": whole()[1:],
    "a greeting": [frames.greeting("toy")],
    "no parts": whole()[:1],
    "parts that end early": whole()[:2],
    "a part twice": [*whole()[:2], whole()[1]],
    "parts in another order": [whole()[0], *whole()[:0:-1]],
    "a short part": [whole()[0], whole()[1][:-1]],
    "a long last part": [*whole()[:-1], whole()[-1] + b"x"],
    "a part of another kind": [whole()[0], b"\x02" + whole()[1][1:]],
    "a message between": [*whole()[:2], *cut(Message("a", b"x"))],
    "another begins": [*whole()[:2], *whole()],
}


@pytest.mark.parametrize("sent", WRONG.values(), ids=WRONG)
def test_what_is_no_message_is_refused_and_leaves_no_room_taken(sent: list[bytes]) -> None:
    rooms = Rooms()
    with pytest.raises(RefusedError):
        read(sent, rooms)
    assert rooms.free == 0
    assert all(size <= MOST for size in rooms.asked)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_nothing_but_a_refusal_comes_of_any_bytes(sent: list[bytes]) -> None:
    rooms = Rooms()
    with suppress(RefusedError):
        read(sent, rooms)
    assert rooms.free == 0


@given(st.binary(max_size=20))
def test_a_greeting_is_one_or_refused(data: bytes) -> None:
    try:
        version, federation = frames.read_greeting(data)
    except RefusedError:
        return
    assert data == struct.pack(">BH", 0, version) + federation.encode()


def test_a_greeting_comes_out_as_it_went_in() -> None:
    assert frames.read_greeting(frames.greeting("toy")) == (frames.VERSION, "toy")
