"""Clients that live for one exchange each, over a grid of this process and over Flower's own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines.flower.virtual_clients import CLIENTS, MAKE, ROUNDS, make_client, prepared
from federation.parties.toy_federation import expected

from secure_fl.engines.flower import grid as module
from secure_fl.engines.flower.grid import GridLink
from secure_fl.engines.flower.simulation import Resources, _Exchanges, _nodes, _seats, simulate
from secure_fl.engines.session.driver import Driver
from secure_fl.errors import DependencyError

pytest.importorskip("flwr")


class OneProcess:
    """A grid whose nodes answer when they are asked."""

    def __init__(self, exchanges: _Exchanges, count: int) -> None:
        self._exchanges, self._count = exchanges, count
        self._replies: dict[str, Any] = {}
        self._numbers = itertools.count()

    def get_node_ids(self) -> list[int]:
        return list(range(1, self._count + 1))

    def push_messages(self, messages: list[Any]) -> list[str]:
        numbers = [f"message-{next(self._numbers)}" for _ in messages]
        for number, message in zip(numbers, messages, strict=True):
            content = self._exchanges.answer(message.content)
            self._replies[number] = SimpleNamespace(has_error=lambda: False, content=content)
        return numbers

    def pull_messages(self, numbers: list[str]) -> list[Any]:
        return [self._replies.pop(number) for number in numbers if number in self._replies]


def ended(clients: dict[str, bytes]) -> None:
    """The federation is over for each of them, with the pools that it must have."""
    for data in clients.values():
        party = make_client(data)
        assert party.over
        assert party.state is not None
        assert torch.equal(party.state.tensors["pools"], expected(range(CLIENTS), ROUNDS))
        party.folder.close()


def test_clients_that_live_for_an_exchange_come_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(module, "_QUICK", 0.0)
    server, clients = prepared(tmp_path)
    grid = OneProcess(_Exchanges(MAKE, clients), len(clients))
    link = GridLink(grid, _seats(clients), "run", ttl=60.0, nodes=_nodes)
    driver = Driver([server], link)
    driver.run(until=lambda: driver.over)
    for _ in range(20):
        link.receive(0.1)
    assert server.failed is None
    ended(clients)


def test_what_a_client_cannot_do_is_a_word() -> None:
    from secure_fl.engines.flower.door import Answer, Question
    from secure_fl.engines.flower.packing import pack, unpack

    for data, word in (({"a": b"{}"}, "unexpected"), ({}, "unexpected")):
        answer = _Exchanges(MAKE, data).answer(pack(Question("exchange", "a")))
        assert unpack(answer, Answer) == (Answer(word), [])


def test_without_ray_a_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("secure_fl.errors.find_spec", lambda _: None)
    with pytest.raises(DependencyError, match=r"secure-fl\[simulation\]"):
        simulate(prepared(tmp_path)[0], MAKE, {})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_flowers_simulation_comes_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    tests = str(Path(__file__).parents[2])
    paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    server, clients = prepared(tmp_path)
    simulate(server, MAKE, clients, resources=Resources(processors=1.0))
    assert server.failed is None
    ended(clients)
