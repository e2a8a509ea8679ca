"""A site measures its way to the server, which bounds what that costs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue

import pytest
from engines.session.certificates import digest
from engines.session.ends import Ends, true, until
from engines.session.proxy import Proxy

from secure_fl.engines.session import serving, streams
from secure_fl.engines.session.channels import PROBE, Word, channel_to, opening
from secure_fl.engines.session.frames import PART
from secure_fl.engines.session.link import Back
from secure_fl.engines.session.probing import MOST, Measured, answers, measured
from secure_fl.engines.session.tls import TlsFiles


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with Ends(tmp_path) as made:
        yield made


def tried(ends: Ends, files: TlsFiles, port: int = 0, federation: str = "toy") -> Measured | Word:
    return measured(f"127.0.0.1:{port or ends.port}", files, federation)


def slowed(ends: Ends, rate: float, delay: float) -> Measured:
    """What is measured of a way that is known."""
    ends.server()
    proxy = Proxy(lambda: ends.port, rate=rate, delay=delay)
    ends.callback(proxy.close)
    found = tried(ends, ends.seat("north"), proxy.port)
    assert isinstance(found, Measured)
    return found


@pytest.mark.slow
def test_a_way_is_measured_as_narrow_and_long_as_it_is(ends: Ends) -> None:
    """A quicker one is in `tests/deployment/site/test_checking.py`."""
    found = slowed(ends, 400_000, 0.05)
    assert 0.1 <= found.round_trip < 0.16
    assert 200_000 < found.out < 480_000
    assert 200_000 < found.into < 480_000


@pytest.mark.slow
def test_the_slowest_way_that_is_expected_is_measured_in_time(ends: Ends) -> None:
    found = slowed(ends, 64_000, 0.15)
    assert 0.3 <= found.round_trip < 0.45
    assert 30_000 < found.out < 80_000
    assert 30_000 < found.into < 80_000


def test_a_way_that_is_far_too_slow_is_said_to_be(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fl.engines.session.probing.SECONDS", 2.0)
    ends.server()
    proxy = Proxy(lambda: ends.port, rate=8_000)
    ends.callback(proxy.close)
    assert tried(ends, ends.seat("north"), proxy.port) == Word.SLOW


def test_a_running_site_keeps_its_stream(ends: Ends) -> None:
    server, files = ends.server(), ends.seat("north")
    until(ends.site("north", files=files), Back)
    assert until(server, Back) == Back("north")
    assert isinstance(tried(ends, files), Measured)
    assert server.peers == {"north"}
    assert server.receive(0.3) is None


def test_only_who_may_have_a_stream_is_answered(ends: Ends) -> None:
    files = ends.seat("north")
    ends.server()
    assert tried(ends, ends.authority.files("nobody")) == Word.REFUSED
    assert tried(ends, files, federation="other") == Word.FEDERATION
    assert tried(ends, files, port=9) == Word.UNREACHABLE
    ends.seats.pop(("north", digest(files)))
    assert tried(ends, files) == Word.REFUSED


def test_one_site_at_a_time_and_for_so_long(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins and says nothing is cut off, and others come."""
    monkeypatch.setattr(serving, "SECONDS", 1.0)
    server, silent = ends.server(), SimpleQueue[bytes | None]()
    with channel_to(f"127.0.0.1:{ends.port}", ends.seat("north").read()) as channel:
        call = channel.stream_stream(PROBE)(iter(silent.get, None), metadata=opening("toy"))
        ends.callback(silent.put, None)
        assert true(server._probing.locked)
        south = ends.seat("south")
        assert tried(ends, south) == Word.BUSY
        assert true(lambda: not call.is_active(), 5.0)
        assert true(lambda: not server._probing.locked(), 5.0)
        assert isinstance(tried(ends, south), Measured)


def test_a_site_measures_now_and_then_at_most(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PROBES", 2)
    ends.server()
    north, south = ends.seat("north"), ends.seat("south")
    found = [tried(ends, north) for _ in range(3)]
    assert [isinstance(each, Measured) for each in found] == [True, True, False]
    assert found[-1] == Word.REFUSED
    assert isinstance(tried(ends, south), Measured)


def test_who_finds_it_busy_has_not_measured(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PROBES", 1)
    server, north = ends.server(), ends.seat("north")
    with server._probing:
        assert [tried(ends, north) for _ in range(3)] == [Word.BUSY] * 3
    assert isinstance(tried(ends, north), Measured)
    assert tried(ends, north) == Word.REFUSED
    assert isinstance(tried(ends, ends.seat("south")), Measured)


@pytest.mark.parametrize("answered", [[], [1], [1] * 4, [1] * 5, [PART] * 3, [PART + 100]])
def test_a_server_that_ends_a_probe_ends_nothing_else(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, answered: list[int]
) -> None:
    """At any of its answers, or with more than was asked for."""
    monkeypatch.setattr(serving, "answers", lambda requests: map(bytes, answered))
    ends.server()
    assert tried(ends, ends.seat("north")) == Word.REFUSED


@pytest.mark.parametrize(
    "request_of", [struct.pack(">I", 1 << 20), struct.pack(">I", 2**32 - 1), b"", bytes(PART + 4)]
)
def test_what_a_probe_costs_is_bounded_whatever_is_asked(request_of: bytes) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        for each in repeat(request_of):
            asked += 1
            yield each

    sizes = [len(each) for each in answers(endless())]
    assert sum(sizes) <= MOST
    assert max(sizes, default=0) <= PART
    assert asked * len(request_of) <= MOST + PART + 4
    assert asked <= MOST // 1024 + 1
