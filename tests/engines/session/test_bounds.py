"""What a site, however it behaves, costs the server and the other sites."""

from __future__ import annotations

import gc
import mmap
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines.session.ends import Ends, heard, say, true, until
from engines.session.raw import raw

from secure_fl.engines.session import boxes, frames
from secure_fl.engines.session.frames import PART, SMALL, cut
from secure_fl.engines.session.link import Arrived, Back, Lost
from secure_fl.federation.parties.party import Message

BEGUN = list(cut(Message("server", bytes(3 * PART))))


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with Ends(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "sent", [b"", b"garbage", BEGUN[1], b"\x01\x06server" + bytes(SMALL + 1), bytes(2 * PART)]
)
def test_garbage_ends_the_stream_it_came_on_and_no_other(ends: Ends, sent: bytes) -> None:
    server = ends.server()
    south = ends.site("south")
    until(south, Back)
    with raw(ends.seat("north"), ends.port) as north:
        until(server, Back)
        north.send(sent)
        assert until(server, Lost).peer == "north"
        assert north.ended.wait(5)
    say(south, "server", b"still here")
    assert heard(server) == b"still here"


def test_what_is_wrong_is_said_in_a_word(ends: Ends) -> None:
    server = ends.server()
    with raw(ends.seat("north"), ends.port) as north:
        north.send(b"garbage")
        assert until(server, Lost) == Lost("north", "malformed")
        assert north.ended.wait(5)
        assert north.why == "malformed"


def test_who_hangs_up_without_a_farewell_is_lost(ends: Ends) -> None:
    server = ends.server()
    with raw(ends.seat("north"), ends.port) as north:
        north.send(None)
        assert until(server, Lost) == Lost("north", "lost")
    with raw(ends.seat("north"), ends.port) as north:
        north.send(frames.FAREWELL)
        assert until(server, Lost) == Lost("north", "closed")


def test_who_stalls_loses_its_place_and_others_go_on(ends: Ends) -> None:
    server = ends.server(stall=1.0, places=1)
    south, large = ends.site("south"), bytes(3 * PART)
    until(south, Back)
    with raw(ends.seat("north"), ends.port) as north:
        north.send(*BEGUN[:2])
        # the place is taken before the other wants it
        assert true(lambda: not server._place.acquire(blocking=False) or server._place.release())
        say(south, "server", large)
        assert heard(server) == large
        assert north.ended.wait(5)
        assert north.why == "stalled"
    assert server.peers == {"south"}


def test_who_stalls_does_not_keep_small_messages_of_others_waiting(ends: Ends) -> None:
    server = ends.server()
    south = ends.site("south")
    until(south, Back)
    with raw(ends.seat("north"), ends.port) as north:
        north.send(*BEGUN[:2])
        for number in range(100):
            say(south, "server", bytes([number]))
            assert heard(server, 2.0) == bytes([number])


def test_who_waits_for_the_place_does_not_stall(ends: Ends) -> None:
    server = ends.server(stall=0.5, places=1)
    north, south, large = ends.site("north"), ends.site("south"), bytes(3 * PART)
    until(north, Back)
    until(south, Back)
    say(north, "server", large)
    say(south, "server", large)
    found = until(server, Arrived)
    assert not true(lambda: len(server.peers) < 2, 1.5)
    del found
    assert heard(server) == large
    assert server.peers == {"north", "south"}


class Pieces:
    """Counts the memory of large messages that is in use."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.most = 0, 0
        self._lock, honest = threading.Lock(), mmap.mmap

        def made(number: int, size: int, **more: Any) -> Any:
            pages = honest(number, size, **more)
            self._count(size)
            weakref.finalize(pages, self._count, -size)
            return pages

        patch.setattr(frames.mmap, "mmap", made)

    def _count(self, size: int) -> None:
        with self._lock:
            self.now += size
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("places", [1, 3])
def test_so_many_large_messages_are_in_memory_however_many_sites_send(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    pieces, server, size = Pieces(monkeypatch), ends.server(places=places), 5 * PART
    sites = [ends.site(f"site-{number}") for number in range(5)]
    for site in sites:
        until(site, Back)
    for site in sites:
        for _ in range(3):
            say(site, "server", bytes(size))
    for _ in range(15):
        assert len(heard(server)) == size
    assert size <= pieces.most <= places * size
    assert server.receive(0.1) is None
    gc.collect()
    assert pieces.now == 0


def test_memory_is_free_when_the_next_event_is_asked_for(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, server = Pieces(monkeypatch), ends.server()
    site = ends.site("north")
    until(site, Back)
    say(site, "server", bytes(2 * PART))
    event = until(server, Arrived)
    assert pieces.now == 2 * PART
    del event
    assert pieces.now == 0


def test_a_size_that_is_only_announced_takes_no_memory(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = Pieces(monkeypatch)
    server = ends.server()
    with raw(ends.seat("north"), ends.port) as north:
        north.send(b"\x02\x06server" + (1 << 40).to_bytes(8, "big"))
        assert until(server, Lost) == Lost("north", "malformed")
    assert pieces.most == 0


def test_what_is_said_is_let_go_of_when_it_has_left(ends: Ends) -> None:
    server = ends.server()
    site = ends.site("north")
    until(site, Back)
    data = np.zeros(2 * PART, np.uint8)
    gone = threading.Event()
    weakref.finalize(data, gone.set)
    say(server, "north-party", data.data)
    del data
    assert len(heard(site)) == 2 * PART
    assert gone.wait(5)


def test_a_site_that_does_not_listen_loses_its_stream(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "MOST_WAITING", 4)
    server = ends.server()
    site = ends.site("north")
    until(site, Back)
    until(server, Back)

    def slow() -> bool:
        say(server, "north-party", bytes(PART))
        return server.peers == frozenset()

    assert true(slow)
    assert until(server, Lost) == Lost("north", "slow")
    assert until(site, Lost).reason in ("slow", "lost")
    assert until(site, Back) == Back("server")


def test_a_site_whose_server_does_not_listen_begins_anew(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "MOST_WAITING", 4)
    ends.server()
    site = ends.site("north")
    until(site, Back)

    def slow() -> bool:
        say(site, "server", bytes(PART))
        return site.peers == frozenset()

    assert true(slow)
    assert until(site, Lost) == Lost("server", "slow")


def test_a_lost_site_leaves_no_place_taken(ends: Ends) -> None:
    server = ends.server(places=1)
    with raw(ends.seat("north"), ends.port) as north:
        north.send(*BEGUN[:2])
        assert true(lambda: not server._place.acquire(blocking=False) or server._place.release())
    assert until(server, Lost).peer == "north"
    south = ends.site("south")
    until(south, Back)
    say(south, "server", bytes(2 * PART))
    assert len(heard(server)) == 2 * PART
