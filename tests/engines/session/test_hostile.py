"""Sites with good certificates that mean harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.session.ends import Ends, heard, say, true, until
from engines.session.raw import raw

from secure_fl.engines.session import boxes, streams
from secure_fl.engines.session.boxes import MOST_SMALL
from secure_fl.engines.session.frames import PART, SMALL, cut
from secure_fl.engines.session.link import Arrived, Back, Lost
from secure_fl.federation.parties.party import Message


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with Ends(tmp_path) as made:
        yield made


def test_a_site_named_as_the_server_is_cannot_take_its_place(ends: Ends) -> None:
    """Where a certificate has no addresses its name is compared: its purpose is another."""
    ends.files = ends.authority.files("127.0.0.1")
    ends.server()
    assert until(ends.site("north"), Lost) == Lost("server", "certificate")
    ends.files = ends.authority.files("localhost")
    with raw(ends.seat("south"), ends.port, hasty=True) as south:
        assert south.ended.wait(10)


class Slow:
    """A lock after which its holder dawdles, so that others get ahead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        time.sleep(0.05)


def test_of_two_streams_at_once_one_is_left(ends: Ends) -> None:
    """None stays that nobody watches, and that would outlive its certificate."""
    server, files = ends.server(), ends.seat("north")
    server._lock = Slow()  # type: ignore[assignment]
    with raw(files, ends.port, hasty=True) as one, raw(files, ends.port, hasty=True) as two:
        assert true(lambda: one.ended.is_set() != two.ended.is_set(), 5.0)
        assert {one.why, two.why} == {"", "replaced"}
        assert server.peers == {"north"}
    found = [event for _ in range(8) if (event := server.receive(0.3))]
    again = [Lost("north", "replaced"), Back("north")]
    assert found[:3] == [Back("north"), *again]
    assert found[3] in (Lost("north", "lost"), Lost("north", "closed"))
    assert len(found) == 4


def test_what_a_site_says_does_not_pile_up_over_its_streams(ends: Ends) -> None:
    """A server that is busy holds no more of a site that comes again and again."""
    server, files = ends.server(), ends.seat("north")
    small = next(cut(Message("server", bytes(SMALL))))
    for _ in range(4):
        with raw(files, ends.port) as north:
            north.send(*[small] * MOST_SMALL)
            time.sleep(0.3)
    assert true(lambda: not server.peers)
    waiting = 0
    while event := server.receive(0.3):
        waiting += isinstance(event, Arrived)
    assert MOST_SMALL // 2 < waiting <= MOST_SMALL
    south = ends.site("south")
    until(south, Back)
    say(south, "server", b"still heard")
    assert heard(server) == b"still heard"


def test_who_sends_a_large_message_in_crumbs_loses_its_place(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part now and then keeps nobody's place for ever."""
    monkeypatch.setattr(boxes, "PACE", 4.0 * PART)
    server = ends.server(stall=1.0, places=1)
    with raw(ends.seat("north"), ends.port) as north:
        for frame in cut(Message("server", bytes(40 * PART))):
            north.send(frame)
            if north.ended.wait(0.9):
                break
        assert north.why == "stalled"
    south, large = ends.site("south"), bytes(2 * PART)
    until(south, Back)
    say(south, "server", large)
    assert heard(server) == large


def test_a_slow_site_that_keeps_pace_is_heard(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "PACE", 8.0 * PART)
    server = ends.server(stall=1.0)
    with raw(ends.seat("north"), ends.port) as north:
        for frame in cut(Message("server", bytes(12 * PART))):
            north.send(frame)
            time.sleep(0.2)
        assert len(heard(server)) == 12 * PART


def test_a_site_that_comes_and_goes_all_the_time_has_to_wait(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every coming costs the server a few lines and files; others are not kept out by it."""
    monkeypatch.setattr(streams, "COMINGS", 8)
    server, files, refused = ends.server(), ends.seat("north"), 0
    for _ in range(12):
        with raw(files, ends.port, hasty=True) as north:
            time.sleep(0.02)
            refused += north.ended.wait(0.1) and north.why == "refused"
    assert refused >= 3
    until(ends.site("south"), Back)
    assert until(ends.site("north", files=files), Back) == Back("server")
    assert server.peers >= {"north"}
