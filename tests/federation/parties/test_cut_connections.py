"""Connections that are cut at any moment: parties that say again that they are there come to what
they would have come to, and release nothing twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parties.kills import Federation, Kind, Knife, Mortal, seeds
from federation.parties.toy_federation import Toy

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.queue import Queue
from secure_fl.errors import PrivacyError
from secure_fl.federation.parties.attempt import Deadlines
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.wire import route

KINDS = {
    "masks": Kind("masked"),
    "clients open": Kind("bfv+masked"),
    "an authority opens": Kind("bfv+masked", "authority"),
    "in the open": Kind("plain"),
    "groups": Kind("masked", program=Toy(6, 3, groups=3)),
}


@dataclass
class Cut(Mortal):
    """A host whose party lives on, while what it says and what it is told is lost now and then."""

    away: int = -1
    """Messages to it that are still lost before it is back; -1 while it can be reached."""

    @property
    def due(self) -> float | None:
        return 0.0 if self.away >= 0 else self.party.due

    def give(self, to: str, data: bytes | memoryview) -> None:
        if self.away < 0:
            return super().give(to, data)
        self.away -= 1
        if self.away < 0:
            self.party.back()
        return None

    def tick(self, now: float) -> None:
        if self.away >= 0:
            self.away = -1
            self.party.back()
        super().tick(now)

    def _live(self, work: Callable[[Party], list[Message]]) -> None:
        self.pause -= 1
        cut = self.pause == 0
        if not cut or self.coins.random() < 0.5:  # else it does not even hear of it
            sent = work(self.party)
            self._sent += [] if cut else [(self.party.name, message) for message in sent]
        if cut:
            self.knife.killed += 1
            self.away = self.coins.randint(0, 3)
            self._draw()


def run(made: Federation, seed: int, cuts: int) -> int:
    """To the end, with so many cuts of each but the server; how many there were."""
    knife, coins = Knife(), random.Random(seed)
    makes: dict[str, Any] = {name: lambda name=name: made.client(name) for name in made.names}
    makes |= {"authority": made.keeper} if made.authority else {}
    hosts: list[Mortal] = [Mortal(made.server, knife, random.Random(0), 0)]
    hosts += [Cut(make, knife, random.Random(coins.random()), cuts) for make in makes.values()]
    made.hosts = hosts
    with knife.over_files():
        queue = Queue(hosts, "server")
        for _ in range(9):
            queue.run(most=300)
            if all(host.over for host in hosts):
                break
            queue.now += 200.0  # a server that is done still waits for who was asked for the state
            for host in hosts:
                host.tick(queue.now)
    return knife.killed


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", seeds(1))
def test_a_cut_connection_changes_nothing(tmp_path: Path, name: str, seed: int) -> None:
    kind = KINDS[name]
    whole = Federation(tmp_path / "whole", kind)
    assert run(whole, seed, 0) == 0
    made = Federation(tmp_path / "cut", kind, people=whole.people)
    assert run(made, seed, 4) > len(made.names)
    assert made.hosts[0].party.failed is None
    assert all(host.over for host in made.hosts)
    for one, other in zip(made.pools(), whole.pools(), strict=True):
        assert torch.equal(one, other)
    assert made.ledgers() == whole.ledgers()
    whole.close()
    made.close()


def test_a_refusal_that_was_lost_is_said_again(tmp_path: Path) -> None:
    """The server does not wait for the answer until the time for training has passed."""
    made, lost = Federation(tmp_path, KINDS["masks"]), list[bytes]()
    clients = [
        Cut(lambda name=name: made.client(name), Knife(), random.Random(0), 0)
        for name in made.names
    ]
    first = clients[0]

    def refuses(releases: object) -> None:
        raise PrivacyError("would pass the budget", "privacy.epsilon", 1.0, "stop")

    object.__setattr__(first.party._site, "admit", refuses)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if sender == first.party.name and route(data).phase == Phase.REFUSE and not lost:
            lost.append(bytes(data))
            first.away = 0
            return None
        return data

    server = Mortal(made.server, Knife(), random.Random(0), 0)
    made.hosts = [server, *clients]
    queue = Queue(made.hosts, "server", tap=tap)
    queue.run()
    assert lost
    assert server.party.failed is None
    assert queue.now < Deadlines().train
    assert server.party.said[0]["reason"] == "no-answer"
    made.close()
