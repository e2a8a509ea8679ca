"""Flower's messages as a link: a federation over them, what is lost on the way, and their sizes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engines.flower.fake_grid import FakeGrid, FakeNode, true
from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy, expected, make

from secure_fl.engines.flower import door
from secure_fl.engines.flower import grid as module
from secure_fl.engines.flower.door import Door, DoorLink, Question
from secure_fl.engines.flower.grid import GridLink
from secure_fl.engines.flower.packing import unpack
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Arrived, Back, Link, Lost
from secure_fl.federation.parties.party import Message, Party

pytest.importorskip("flwr")

SITES = (("client-0000", "client-0001"), ("client-0002",), ("client-0003",))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_QUICK": 0.01,
        "_SLOW": 0.05,
        "POKE": 0.5,
        "PARTING": 0.1,
        "_AGAIN": 0.1,
        "LOOK": 0.2,
    }.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(door, "_DELIVERED", 0.1)
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def drive(parties: list[Party], link: Link, stop: threading.Event) -> threading.Thread:
    def run() -> None:
        Driver(parties, link).run(until=stop.is_set)
        link.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@contextmanager
def over_flower(
    clients: Sequence[Party], folder: Path
) -> Iterator[tuple[GridLink, FakeGrid, list[FakeNode]]]:
    """Sites of a toy federation at their doors, and a link for its server."""
    parties = {party.name: party for party in clients}
    stop = threading.Event()
    with ExitStack() as stack:
        nodes = [FakeNode(n + 1, folder / f"site-{n}", names) for n, names in enumerate(SITES)]
        threads = [
            drive([parties[name] for name in node.parties], DoorLink(Door(node.site)), stop)
            for node in nodes
        ]
        grid = FakeGrid(nodes)
        stack.callback(lambda: [thread.join(10) for thread in threads])
        stack.callback(stop.set)
        stack.callback(grid.close)
        seats = {f"site-{node.number}": node for node in nodes}
        yield GridLink(grid, lambda: seats, "run", ttl=60.0), grid, nodes


def test_a_federation_over_flowers_messages(tmp_path: Path) -> None:
    made = make(4, "bfv+masked", rounds=3)
    with over_flower(made.clients, tmp_path) as (link, _, _nodes):
        assert Driver([made.server], link).run(linger=5.0)
        assert made.server.failed is None
        assert true(lambda: all(client.over for client in made.clients))
    assert all(torch.equal(pools, expected(range(4), 3)) for pools in made.pools())


def test_answers_are_taken_one_at_a_time_and_strangers_are_not_asked(tmp_path: Path) -> None:
    made = make(4, "masked", rounds=1)
    with over_flower(made.clients, tmp_path) as (link, grid, nodes):
        stranger = FakeNode(99, tmp_path / "stranger", ("client-0000",))
        grid.nodes[99] = stranger
        assert Driver([made.server], link).run(linger=2.0)
    assert {len(numbers) for numbers in grid.pulled} == {1}
    assert not stranger.waiting
    assert all(node.answered for node in nodes)


def test_a_revoked_site_is_asked_no_more(tmp_path: Path) -> None:
    made = make(4, "masked")
    with over_flower(made.clients, tmp_path) as (link, _, nodes):
        assert isinstance(link.receive(20.0), Back)
        nodes[0].revoked = True
        assert until_lost(link, "site-1") == Lost("site-1", "offline")
        before = nodes[0].answered
        for _ in range(20):
            link.receive(0.05)
        assert nodes[0].answered <= before + 1


def until_lost(link: GridLink, site: str) -> Lost | None:
    for _ in range(400):
        event = link.receive(0.05)
        if isinstance(event, Lost) and event.peer == site:
            return event
    return None


def until_back(link: GridLink, site: str) -> list[object]:
    """Events up to the one that says a site is back."""
    found: list[object] = []
    for _ in range(400):
        found.append(link.receive(0.05))
        if found[-1] == Back(site):
            return found
    raise AssertionError(found)


def test_an_error_of_flowers_loses_a_site_and_its_next_answer_brings_it_back(
    tmp_path: Path,
) -> None:
    made = make(4, "masked")
    with over_flower(made.clients, tmp_path) as (link, grid, nodes):
        until_back(link, "site-1")
        nodes[0].loses = True
        link.send("server", Message("client-0000", b"lost on the way"))
        line = link._lines["site-1"]
        true(lambda: link.receive(0.01) is None and line.message)
        grid.fail(line.message, 5)
        assert until_lost(link, "site-1") == Lost("site-1", "flower-5")
        assert "site-1" not in link.peers
        link.send("server", Message("client-0000", b"nobody hears this"))
        nodes[0].loses = False
        events = until_back(link, "site-1")
        assert Back("site-1") in events
        hello = true(lambda: link.receive(0.05))
        assert isinstance(hello, Arrived)  # its parties said again that they are there


@pytest.mark.parametrize("code", ["refused-app", "failed"])
def test_an_apps_failure_is_a_word(tmp_path: Path, code: str) -> None:
    made = make(4, "masked")
    with over_flower(made.clients, tmp_path) as (link, grid, nodes):
        until_back(link, "site-2")
        nodes[1].loses = True
        line = link._lines["site-2"]
        true(lambda: link.receive(0.01) is None and line.message)
        grid.fail(line.message, 2, code)
        assert until_lost(link, "site-2") == Lost("site-2", code)


@pytest.mark.parametrize("seed", range(3))
def test_a_federation_goes_on_when_answers_and_nodes_are_lost(tmp_path: Path, seed: int) -> None:
    made, coins = Federation(tmp_path, Kind("bfv+masked", program=Toy(4, 3))), random.Random(seed)
    clients, server = [made.client(name) for name in made.names], made.server()
    with over_flower(clients, tmp_path / "sites") as (link, _, nodes):
        stop = threading.Event()

        def harm() -> None:
            for _ in range(10):
                stop.wait(0.3)
                node = coins.choice(nodes)
                node.loses = True
                stop.wait(0.2)
                node.loses, node.since = False, node.since + 1  # another life of the node

        harming = threading.Thread(target=harm)
        harming.start()
        assert Driver([server], link).run(linger=5.0)
        harming.join()
        assert server.failed is None
        assert true(lambda: all(client.over for client in clients))
    for client in clients:
        assert client.state is not None
        assert torch.equal(client.state.tensors["pools"], expected(range(4), 3))
        client.folder.close()
    server.folder.close()


def test_a_server_waits_no_longer_than_its_sites(tmp_path: Path) -> None:
    """They say farewell, each in an exchange that comes soon after the end."""
    made = make(4, "masked", rounds=1)
    with over_flower(made.clients, tmp_path) as (link, _, _nodes):
        driver, began = Driver([made.server], link), time.monotonic()
        assert driver.run(linger=60.0, settle=0.0)
        assert time.monotonic() - began < 30.0
        assert link.peers == frozenset()


def test_what_is_said_to_a_site_at_once_is_bounded(tmp_path: Path) -> None:
    """By the longest message and its parties; what is more goes with the next message."""
    made, sizes = make(4, "bfv+masked", rounds=1), list[list[int]]()
    with over_flower(made.clients, tmp_path) as (link, grid, _):
        link._most, push = 6000, grid.push_messages

        def seen(messages: Iterable[Any]) -> list[str]:
            kept = list(messages)
            sizes.extend(
                [len(frame) for frame in unpack(each.content, Question)[1]] for each in kept
            )
            return push(kept)

        grid.push_messages = seen  # type: ignore[method-assign]
        assert Driver([made.server], link).run(linger=3.0)
        assert made.server.failed is None
    assert any(len(each) > 1 for each in sizes)
    assert all(sum(each) <= 2 * 6000 or len(each) == 1 for each in sizes)
    assert all(torch.equal(pools, expected(range(4), 1)) for pools in made.pools())


def test_uploads_come_in_waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 6000)
    made, under_way = make(4, "bfv+masked", rounds=1), list[list[int]]()
    with over_flower(made.clients, tmp_path) as (link, grid, _):
        push = grid.push_messages

        def seen(messages: Iterable[Any]) -> list[str]:
            lines = link._lines.values()
            under_way.append([line.room for line in lines if line.message])
            return push(messages)

        monkeypatch.setattr(grid, "push_messages", seen)
        assert Driver([made.server], link).run(linger=3.0)
        assert made.server.failed is None
    assert all(sum(rooms) <= 6000 or sum(room > 2000 for room in rooms) == 1 for rooms in under_way)
    assert max(max(rooms) for rooms in under_way) > 6000  # one that is larger came alone
    assert all(torch.equal(pools, expected(range(4), 1)) for pools in made.pools())
