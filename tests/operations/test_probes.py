"""Whether a process lives and is ready, asked over HTTP as an orchestrator does."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from secure_fl.errors import FileError
from secure_fl.operations import probes
from secure_fl.operations.probes import Health, Probes
from secure_fl.operations.watching import Watching, watch_of

QUIET = 60.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Here = tuple[Probes, Watching, Clock]


def made(role: str) -> Here:
    clock = Clock()
    health = Health(QUIET, clock)
    return Probes(health), watch_of(None, health, role=role, name="north"), clock


@pytest.fixture(params=["server", "site"])
def here(request: pytest.FixtureRequest) -> Iterator[Here]:
    found = made(request.param)
    yield found
    found[0].close()


def asked(probes: Probes, path: str, method: str = "GET") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{probes.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_alive_while_the_loop_turns(here: Here) -> None:
    probes, watch, clock = here
    assert asked(probes, "/healthz") == 200
    clock.now = QUIET + 1
    assert asked(probes, "/healthz") == 503
    watch.turned()
    assert asked(probes, "/healthz") == 200
    clock.now = 2 * QUIET
    assert asked(probes, "/healthz?from=probe") == 200


def test_a_server_is_ready_when_it_listens_and_a_site_when_it_is_connected(here: Here) -> None:
    probes, watch, clock = here
    assert asked(probes, "/readyz") == 503
    watch.turned()
    assert asked(probes, "/readyz") == (200 if watch.view.role == "server" else 503)
    watch.back("server")
    watch.turned()
    assert asked(probes, "/readyz") == 200
    watch.lost("server", "silent")
    watch.turned()
    assert asked(probes, "/readyz") == (200 if watch.view.role == "server" else 503)
    clock.now = 2 * QUIET
    assert asked(probes, "/readyz") == 503


def test_without_numbers_metrics_say_what_to_install(here: Here) -> None:
    assert asked(here[0], "/metrics") == 501


def test_there_is_nothing_else(here: Here) -> None:
    assert asked(here[0], "/") == 404
    assert asked(here[0], "/../etc/passwd") == 404
    assert asked(here[0], "/healthz", "POST") == 501
    assert asked(here[0], "/healthz", "DELETE") == 501


def test_a_port_that_is_taken_is_a_typed_error(here: Here) -> None:
    with pytest.raises(FileError, match="cannot be listened on"):
        Probes(Health(QUIET), port=here[0].port)


def test_it_listens_on_this_machine_alone(here: Here) -> None:
    assert here[0]._server.server_address[0] == "127.0.0.1"


def test_readers_that_say_nothing_are_few_and_keep_nobody_out(here: Here) -> None:
    slow = [socket.create_connection(("127.0.0.1", here[0].port)) for _ in range(9)]
    try:
        assert asked(here[0], "/healthz") == 200
    finally:
        for one in slow:
            one.close()


def test_a_reader_that_says_a_letter_now_and_then_is_cut_off(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its places are for seconds in all, not for seconds of silence."""
    monkeypatch.setattr(probes, "_PATIENCE", 1.0)
    found = Probes(Health(QUIET))
    try:
        slow = [socket.create_connection(("127.0.0.1", found.port)) for _ in range(8)]
        began, cut = time.monotonic(), 0
        while slow and time.monotonic() - began < 5:
            for one in list(slow):
                try:
                    one.sendall(b"G")
                except OSError:
                    slow.remove(one)
                    one.close()
                    cut += 1
            time.sleep(0.2)
        assert cut == 8
        assert asked(found, "/healthz") == 200
    finally:
        found.close()
        for one in slow:
            one.close()
