"""All clients in this process, one after the other: for simulations, tests and small pilots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from secure_fl.data.partitions import ClientData
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.messages import Reply
from secure_fl.federation.phase import Call


class EmbeddedEngine:
    """Plain calls. Server and clients share a process, so nothing is hidden from anybody: the report says so."""

    def __init__(self, clients: Sequence[ClientData], blueprint: Blueprint) -> None:
        bench = Workbench(blueprint)
        self._clients = [Client(data, bench) for data in clients]

    def ask(self, call: Call) -> Iterator[tuple[int, Reply]]:
        """(client, reply) in the call's order; a reply is made when it is taken, so only one is in memory."""
        if call.request is None:
            return
        for position, client in enumerate(call.clients):
            yield client, self._clients[client].handle(call.request, position)
