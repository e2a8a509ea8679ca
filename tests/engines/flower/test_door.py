"""The door of a site's process: who comes in, what it hears and says, and who hangs up."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from federation.parties.toy_federation import make

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.flower import door as module
from secure_fl.engines.flower.door import (
    ABSENT,
    BUSY,
    DOOR,
    Answer,
    Door,
    DoorLink,
    Question,
    ask,
)
from secure_fl.engines.session.link import Arrived, Back
from secure_fl.errors import EngineError
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import Wire

ROOM = 1 << 20


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "site")
    yield made
    made.close()


@pytest.fixture
def apps() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def exchange(
    apps: ThreadPoolExecutor, folder: Path, *frames: bytes, **facts: object
) -> Future[tuple[Answer, list[bytes]] | None]:
    told = {"epoch": "1", "room": ROOM, "to": ("a",) * len(frames), **facts}
    return apps.submit(ask, folder, Question("exchange", **told), frames)  # type: ignore[arg-type]


def site(door: Door) -> Path:
    return door._path.parent


def connected(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(folder / DOOR))
    return made


def test_only_the_owner_comes_in(door: Door) -> None:
    assert stat.S_IMODE(site(door).stat().st_mode) == 0o700
    assert stat.S_IMODE((site(door) / DOOR).stat().st_mode) == 0o600


def test_a_second_process_gets_no_door(door: Door) -> None:
    with pytest.raises(EngineError, match="belongs to a process that runs"):
        Door(site(door))


def test_a_door_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / DOOR))
    left.close()
    Door(tmp_path).close()
    assert ask(tmp_path, Question("session")) is None


def test_a_long_path_has_a_door_too(tmp_path: Path, apps: ThreadPoolExecutor) -> None:
    folder = tmp_path / ("long-" * 30)
    door = Door(folder)
    asked = apps.submit(ask, folder, Question("session", "federation"))
    assert door.session(5.0) == "federation"
    door.finish("")
    door.close()
    assert asked.result(5.0) == (Answer(""), [])


def test_a_session_is_asked_for_and_ends_with_a_word(door: Door, apps: ThreadPoolExecutor) -> None:
    assert door.session(0.01) is None
    asked = [apps.submit(ask, site(door), Question("session", "federation")) for _ in range(2)]
    assert door.session(5.0) == "federation"
    assert not any(one.done() for one in asked)
    while sum(len(waiting) for waiting in door._asked.values()) < 2:
        pass
    door.finish("refused")
    assert [one.result(5.0) for one in asked] == [(Answer("refused"), [])] * 2


def test_who_waits_when_the_door_is_shut_hears_that_nobody_is_there(
    door: Door, apps: ThreadPoolExecutor
) -> None:
    asked = apps.submit(ask, site(door), Question("session"))
    assert door.session(5.0) == ""
    door.close()
    found = asked.result(5.0)
    assert found is None or found[0].code == ABSENT


def test_an_app_that_dies_leaves_the_next_one_alone(door: Door, apps: ThreadPoolExecutor) -> None:
    connection = connected(site(door))
    head = b'{"kind":"session","word":"dead"}'
    connection.sendall(struct.pack(">Q", len(head)) + head)
    assert door.session(5.0) == "dead"
    connection.close()
    asked = apps.submit(ask, site(door), Question("session", "alive"))
    while door.session(5.0) != "alive":
        pass
    door.finish("")
    assert asked.result(5.0) == (Answer(""), [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        struct.pack(">Q", 1 << 40),
        struct.pack(">Q", 9) + b"no json!!",
        struct.pack(">Q", 17) + b'{"kind":"pickle"}',
        struct.pack(">Q", 42) + b'{"kind":"session","sizes":[99999999999999]}'[:42],
        os.urandom(4096),
    ],
)
def test_nonsense_is_hung_up_on(door: Door, apps: ThreadPoolExecutor, data: bytes) -> None:
    with connected(site(door)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10.0)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    asked = apps.submit(ask, site(door), Question("session", "still here"))
    assert door.session(5.0) == "still here"
    door.finish("")
    asked.result(5.0)


def test_more_questions_than_can_wait_are_turned_away(door: Door, apps: ThreadPoolExecutor) -> None:
    asked = [apps.submit(ask, site(door), Question("session")) for _ in range(10)]
    assert sum(1 for one in asked if _code(one) == BUSY) == 2
    door.finish("")
    assert sum(1 for one in asked if _code(one, 5.0) == "") == 8


def _code(one: Future[tuple[Answer, list[bytes]] | None], seconds: float = 1.0) -> str | None:
    try:
        found = one.result(seconds)
    except TimeoutError:
        return None
    return None if found is None else found[0].code


def test_an_exchange_is_answered_when_its_last_event_is_done(
    door: Door, apps: ThreadPoolExecutor
) -> None:
    link = DoorLink(door)
    link.send("a", Message("server", b"nobody hears this"))
    assert link.peers == frozenset()
    asked = exchange(apps, site(door), b"one", b"two")
    assert link.receive(5.0) == Back("server")
    assert link.peers == {"server"}
    for data in (b"one", b"two"):
        event = link.receive(0.0)
        assert isinstance(event, Arrived)
        assert (event.to, event.data) == ("a", data)
        link.send("a", Message("server", b"answer to " + data))
        assert not asked.done()
    assert link.receive(0.0) is None
    assert asked.result(5.0) == (
        Answer("", 1, 0, (13, 13)),
        [b"answer to one", b"answer to two"],
    )


def test_what_finds_no_room_is_fetched(door: Door, apps: ThreadPoolExecutor) -> None:
    link = DoorLink(door)
    asked = exchange(apps, site(door), room=10)
    assert link.receive(5.0) == Back("server")
    for size in (8, 30, 2):
        link.send("a", Message("server", bytes(size)))
    link.receive(0.0)
    assert asked.result(5.0) == (Answer("", 1, 32, (8,)), [bytes(8)])
    asked = exchange(apps, site(door), got=1, room=32)
    assert link.receive(2.0) is None
    assert link.receive(0.0) is None
    assert asked.result(5.0) == (Answer("", 2, 0, (30, 2)), [bytes(30), bytes(2)])


@pytest.mark.parametrize("facts", [{"got": 0}, {"got": 1, "epoch": "2"}, {"got": 7}])
def test_what_was_lost_is_said_again_from_the_beginning(
    door: Door, apps: ThreadPoolExecutor, facts: dict[str, object]
) -> None:
    link = DoorLink(door)
    asked = exchange(apps, site(door))
    assert link.receive(5.0) == Back("server")
    link.receive(0.0)
    assert asked.result(5.0) == (Answer("", 1), [])
    link.send("a", Message("server", b"what is left over"))
    asked = exchange(apps, site(door), **facts)
    assert link.receive(5.0) == Back("server")
    link.receive(0.0)
    assert asked.result(5.0) == (Answer("", int(str(facts["got"])) + 1), [])


def test_no_loss_is_seen_where_there_is_none(door: Door, apps: ThreadPoolExecutor) -> None:
    link = DoorLink(door)
    for number in range(3):
        asked = exchange(apps, site(door), b"x", got=number)
        events = [link.receive(5.0 if not place else 0.0) for place in range(2 if number else 3)]
        assert (events[0] == Back("server")) == (number == 0)
        assert asked.result(5.0) == (Answer("", number + 1), [])


def test_an_end_answers_what_is_open(door: Door, apps: ThreadPoolExecutor) -> None:
    link = DoorLink(door)
    asked = exchange(apps, site(door), b"the end")
    assert link.receive(5.0) == Back("server")
    assert isinstance(link.receive(0.0), Arrived)
    link.send("a", Message("server", b"goodbye"))
    threading.Timer(0.1, link.close).start()
    assert asked.result(5.0) == (Answer("", 1, 0, (7,), farewell=True), [b"goodbye"])
    # who was answered may ask again before the door is shut
    end = time.monotonic() + 5
    while (found := ask(site(door), Question("exchange"))) is not None:
        assert found[0].code == module.ABSENT
        assert time.monotonic() < end


def test_when_it_has_ended_a_farewell_waits_for_an_exchange(
    door: Door, apps: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where it has not ended, or the server has not asked for long."""
    monkeypatch.setattr(module, "_DELIVERED", 0.0)
    made, link = make(4), DoorLink(door)
    end = Wire(made.identities["server"], made.roster).sign(Phase.END, {})
    asked = exchange(apps, site(door), end)
    assert link.receive(5.0) == Back("server")
    link.receive(0.0)
    link.receive(0.0)
    assert asked.result(5.0)[0].farewell is False  # type: ignore[index]
    closing = apps.submit(link.close)
    assert exchange(apps, site(door), got=1).result(5.0)[0].farewell  # type: ignore[index]
    closing.result(5.0)
    began = time.monotonic()
    DoorLink(Door(site(door))).close()
    assert time.monotonic() - began < 2.0


def test_no_more_comes_in_than_the_plan_lets_a_server_say(
    tmp_path: Path, apps: ThreadPoolExecutor
) -> None:
    door = Door(tmp_path / "site", most=1000)
    try:
        link = DoorLink(door)
        assert exchange(apps, site(door), bytes(600), bytes(401)).result(5.0) is None
        asked = exchange(apps, site(door), bytes(600), bytes(400))
        assert link.receive(5.0) == Back("server")
        assert [link.receive(0.0) for _ in range(2)] == [
            Arrived("a", bytes(600)),
            Arrived("a", bytes(400)),
        ]
        link.close()
        assert asked.result(5.0) is not None
    finally:
        door.close()


def test_a_crowd_does_not_break_the_door(door: Door, apps: ThreadPoolExecutor) -> None:
    """Where there are no more handles the next one who comes is heard all the same."""
    honest, failing = door._socket, [OSError(errno.EMFILE, "too many open files")] * 3

    def accept() -> object:
        if failing:
            raise failing.pop()
        return honest.accept()

    door._socket = Refusing(honest, accept)  # type: ignore[assignment]
    with connected(site(door)):
        pass  # wakes the listener, whose next look is ours
    asked = apps.submit(ask, site(door), Question("session", "still here"))
    heard = door.session(5.0)
    door.close()
    asked.result(5.0)
    assert heard == "still here"
    assert not failing


class Refusing:
    """A socket, but for how it lets somebody in."""

    def __init__(self, honest: socket.socket, accept: Callable[[], object]) -> None:
        self._honest, self.accept = honest, accept

    def __getattr__(self, name: str) -> object:
        return getattr(self._honest, name)


def test_a_crowd_that_says_nothing_takes_few_places(door: Door, apps: ThreadPoolExecutor) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(38):  # more would wait outside for ever
            stack.enter_context(connected(site(door)))
        time.sleep(0.3)
        assert threading.active_count() - before <= 32
        asked = apps.submit(ask, site(door), Question("session", "still here"))
        assert door.session(0.3) is None
    assert door.session(10.0) == "still here"
    door.finish("")
    assert asked.result(5.0) == (Answer(""), [])
