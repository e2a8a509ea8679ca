"""A narrow and long way: 64 kB/s, and 300 ms there and back; also where the kernel has no netem."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.session.ends import Ends, say, until
from engines.session.proxy import Proxy

from secure_fl.engines.session.link import Arrived, Back, Lost

SIZE = 2_000_000
pytestmark = pytest.mark.slow


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with Ends(tmp_path) as made:
        yield made


def test_large_messages_pass_both_ways_and_nobody_is_taken_for_dead(ends: Ends) -> None:
    server = ends.server()
    proxy = Proxy(lambda: ends.port, rate=64_000, delay=0.15)
    ends.callback(proxy.close)
    site, near = ends.site("north", port=proxy.port), ends.site("south")
    until(site, Back)
    until(near, Back)
    for link, sender, to in ((server, site, "server"), (site, server, "north-party")):
        say(sender, to, bytes(SIZE))
        ends_at = time.monotonic() + 3 * SIZE / 64_000
        while not isinstance(event := link.receive(1.0), Arrived):
            assert not isinstance(event, Lost)
            assert time.monotonic() < ends_at
        assert len(event.data) == SIZE
    assert server.peers == {"north", "south"}


def test_a_way_that_stops_without_a_word_is_given_up_and_found_again(ends: Ends) -> None:
    server = ends.server()
    proxy = Proxy(lambda: ends.port)
    ends.callback(proxy.close)
    site = ends.site("north", port=proxy.port)
    until(site, Back)
    proxy.stopped.set()
    assert until(server, Lost, 40.0) == Lost("north", "lost")
    assert until(site, Lost, 40.0) == Lost("server", "lost")
    proxy.stopped.clear()
    assert until(site, Back, 40.0) == Back("server")
