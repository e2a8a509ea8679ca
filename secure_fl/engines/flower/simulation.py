"""Many clients on one machine or cluster, by Flower's own simulation: each a party in its folder.

Flower (by Ray) gives every exchange of a client a process that has the resources it needs, so
clients share processors and GPUs as it sees fit. A client is made from its folder for an exchange
and lives no longer, so memory does not grow with their number.

Assumes: whoever simulates holds all data and keys; nothing is secret from that machine.
Parties keep themselves in folders (`Kept...`), which all of Flower's processes see.
Not covered: Ray moves functions between its processes by pickle, and our messages as bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from secure_fl.engines.flower.client import UNEXPECTED
from secure_fl.engines.flower.door import Answer, Question
from secure_fl.engines.flower.grid import GridLink
from secure_fl.engines.flower.nodes import Node, Seats
from secure_fl.engines.flower.packing import pack, unpack
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Watch
from secure_fl.errors import SecureFLError, TrainingError, need
from secure_fl.federation.parties.party import Party

_TTL, _LINGER = 86400.0, 60.0


@dataclass(frozen=True)
class Resources:
    """What a client needs while it computes; Flower's `client-resources`.

    Attributes:
        processors: of the machine.
        gpus: share of a GPU: with .25, four clients at a time are on one.
    """

    processors: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class _Virtual:
    """A client's seat; it has no key of a node, for there is none."""

    parties: Sequence[str]
    node: bytes = b""
    revoked: bool = False


def simulate(
    server: Party,
    make: str,
    data: Mapping[str, bytes],
    *,
    resources: Resources = Resources(),
    watch: Watch | None = None,
) -> None:
    """Run a federation to its end, the server in this process.

    Args:
        server: the server's party.
        make: `module:function` that makes a party from bytes; it is called in other processes, and
            what it makes has a `folder` to close.
        data: bytes for each of the other parties, by name.
        resources: what each needs.
        watch: is told what happens.

    Raises:
        DependencyError: Flower's simulation is not installed.
        TrainingError: Flower gave up.
    """
    need("ray", "simulation", "engine", "flower")
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    client_app, server_app, ended = ClientApp(), ServerApp(), list[bool]()
    client_app.query()(_Exchanges(make, dict(data)))

    def serve(grid: Any, _: object) -> None:
        link = GridLink(grid, _seats(data), "simulation", ttl=_TTL, nodes=_nodes)
        ended.append(Driver([server], link, watch=watch).run(linger=_LINGER))

    server_app.main()(serve)
    needs = {"num_cpus": resources.processors, "num_gpus": resources.gpus}
    run_simulation(server_app, client_app, len(data), backend_config={"client_resources": needs})
    if ended != [True]:
        remedy = "read what Flower printed"
        raise TrainingError("ended early", "simulation", len(data), remedy)


@dataclass(frozen=True)
class _Exchanges:
    """What each of Flower's processes does with a message: makes the party, gives it what came, and
    takes what it says.
    """

    make: str
    data: dict[str, bytes]

    def __call__(self, message: Any, _: object) -> Any:
        from flwr.app import Message

        return Message(self.answer(message.content), reply_to=message)

    def answer(self, content: Any) -> Any:
        """Content of the answer."""
        try:
            question, frames = unpack(content, Question)
            return pack(*self._told(question, frames))
        except SecureFLError as error:
            return pack(Answer(error.code))
        except Exception:  # as of any client's app: a word, and no text
            return pack(Answer(UNEXPECTED))

    def _told(
        self, question: Question, frames: Sequence[bytes]
    ) -> tuple[Answer, list[bytes | memoryview]]:
        module, _, name = self.make.partition(":")
        party = getattr(import_module(module), name)(self.data[question.word])
        try:
            # it is made anew for every exchange, but says only once that it is there
            said = party.tick(0.0) if question.got == 0 else []
            if question.got:
                party.stay()
            for frame in frames:
                said += party.receive(frame)
            return Answer("", question.got + 1), [message.data for message in said]
        finally:
            party.folder.close()


def _seats(clients: Iterable[str]) -> Seats:
    found = {name: _Virtual((name,)) for name in clients}
    return lambda: found


def _nodes(grid: Any, seats: Seats) -> dict[str, Node]:
    """Any of Flower's nodes is any client: all have all folders."""
    numbers = sorted(grid.get_node_ids())
    return {name: Node(number, "") for name, number in zip(seats(), numbers, strict=False)}
