"""All clients in this process, one after the other: for simulations, tests and small pilots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from secure_fl.data.partitions import ClientData
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.level_client import LevelClient
from secure_fl.federation.messages import Reply
from secure_fl.federation.phase import Call
from secure_fl.federation.private_client import PrivateClient
from secure_fl.federation.release_box import ReleaseBox
from secure_fl.federation.releasing import Releasing
from secure_fl.federation.sketches import client_sketch
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.noise import NoiseSource


class EmbeddedEngine:
    """Plain calls. Server and clients share a process, so nothing is hidden from anybody: the report says so."""

    def __init__(
        self,
        clients: Sequence[ClientData],
        blueprint: Blueprint,
        results: ReleaseBox | Path | None = None,
        already: Callable[[int], tuple[Charges, ...]] = lambda _: ((),),
    ) -> None:
        """`results`: where private results are kept until the run ends, or its folder. `already`: what earlier runs may have released of a client."""
        bench, noise = Workbench(blueprint), new_noise()
        self.results = results if isinstance(results, ReleaseBox) else ReleaseBox(results)
        self._clients = [_client(data, bench, noise, self.results, already(data.id)) for data in clients]

    def releases(self, call: Call) -> list[Release]:
        """What the clients called would release by answering."""
        if call.request is None:
            return []
        return [release for position, client in call.answering for release in self._clients[client].releases(call.request, position)]

    def remember(self, choices: Mapping[str, int]) -> None:
        """Remind clients of the pools that they used, by their numbers, where a run goes on whose sketches are gone."""
        for client, pool in choices.items():
            self._clients[int(client)].before = pool

    def ask(self, call: Call) -> Iterator[tuple[int, Reply]]:
        """(client, reply) in the call's order; a reply is made when it is taken, so only one is in memory."""
        if call.request is None:
            return
        for position, client in call.answering:
            yield client, self._clients[client].handle(call.request, position)


def new_noise() -> NoiseSource:
    """The source of all noise of a run, keyed by the operating system. A function, so that tests can put a repeatable one in its place."""
    return NoiseSource.fresh()


def _client(data: ClientData, bench: Workbench, noise: NoiseSource, box: ReleaseBox, already: tuple[Charges, ...]) -> Client:
    """The kind of client that the configuration's privacy asks for, with the kind of sketch that goes along."""
    config, releasing = bench.blueprint.config, Releasing(data.id, noise, box)
    if bench.blueprint.client_plan is not None:
        return LevelClient(data, bench, bench.blueprint.client_plan, noise, box)
    sketch = client_sketch(data, bench, releasing) if config.pools.enabled and config.pools.start == "sketch" else None
    if config.privacy.unit == "example":
        return PrivateClient(data, bench, sketch, releasing, already)
    return Client(data, bench, sketch)
