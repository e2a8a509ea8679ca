"""A server process that never holds a key: it is forked before any key exists, and adds what it
cannot read.

    python examples/keyless_server.py

Five clients, three pools, one drop-out. The server process makes an identity of its own, to sign
with, and is told public facts: roster, plan, the encryption key's fingerprint. Everything else that
reaches it is bytes of the protocol, over a socket. At the end it prints what it has seen; the
clients print the sums that they opened.
"""

from __future__ import annotations

import json
import os
import socket
import struct

import numpy as np

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.he.ceremony import (
    Epoch,
    GrantExpected,
    accept_grant,
    granted_fingerprint,
    make_grant,
    new_key,
)
from secure_fl.he.keys import HolderKey, SecretKey
from secure_fl.he.parameters import BFV_4096
from secure_fl.secure_sum.block_codec import client_cipher, holder_cipher
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Step

PROTECTION, SHAPE = "bfv+masked", BlockShape(pools=3, width=1000)
CHOICES = {"ada": 0, "ben": 0, "cem": 1, "dee": 1, "eve": 2}
DROPS_OUT = "ben"


def send(wire: socket.socket, *parts: bytes | memoryview) -> None:
    """One message of several parts, each with its length."""
    wire.sendall(
        struct.pack(">I", len(parts))
        + b"".join(piece for part in parts for piece in (struct.pack(">I", len(part)), part))
    )


def receive(wire: socket.socket) -> list[bytes]:
    """The parts of one message."""

    def take(size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            piece = wire.recv(size - len(taken))
            if not piece:
                raise EOFError("the other process is gone")
            taken += piece
        return bytes(taken)

    def number() -> int:
        return int(struct.unpack(">I", take(4))[0])

    return [take(number()) for _ in range(number())]


def plan_of(roster: Roster, fingerprint: bytes) -> RoundPlan:
    """The public plan; both processes make the same one, and its digest is in every message."""
    return RoundPlan(PROTECTION, roster, 0, SHAPE, "server", key_fingerprint=fingerprint)


def serve(wire: socket.socket) -> None:
    """The server process: public facts in, protocol bytes in and out."""
    identity = Identity.generate("server", "server")
    send(wire, identity.card())
    roster, coordinator, fingerprint = receive(wire)
    server = RoundServer(
        plan_of(Roster.open(roster, Member.from_card(coordinator)), fingerprint), identity
    )
    seen = 0
    while server.step is not Step.DONE:
        what, *data = receive(wire)
        if what == b"message":
            seen += len(data[0])
            send(wire, (server.receive(data[0]) or "").encode())
        else:
            messages = server.advance()
            send(
                wire,
                json.dumps([int(server.step)]).encode(),
                *(part for m in messages for part in (m.recipient.encode(), m.data)),
            )
    kinds = sorted({type(value).__name__ for value in vars(server).values()})
    print(
        f"server: {seen:,} bytes seen, {len(server.survivors)} clients summed; it holds "
        f"{', '.join(kinds)}",
        flush=True,
    )


def main() -> None:
    """Fork the server, then make identities, keys and clients here."""
    wire, other = socket.socketpair()
    child = os.fork()
    if child == 0:
        wire.close()
        serve(other)
        os._exit(0)
    other.close()
    server_card = receive(wire)[0]
    coordinator = Identity.generate("coordinator", "coordinator")
    people = {name: Identity.generate(name) for name in CHOICES}
    roster = Roster("example", (), 10).add(
        [server_card, coordinator.card(), *(person.card() for person in people.values())]
    )
    epoch = Epoch.of(0, roster)
    grant = make_grant(people["ada"], roster, new_key(BFV_4096, "clients"), epoch, PROTECTION)
    expected = GrantExpected("ada", "clients", BFV_4096, PROTECTION, epoch, frozenset())
    fingerprint = granted_fingerprint(grant, roster, expected)
    send(wire, roster.sign(coordinator), coordinator.card(), fingerprint)
    plan = plan_of(roster, fingerprint)
    clients = {}
    for name, person in people.items():
        key = accept_grant(grant, roster, person, expected).for_round(0)
        assert isinstance(key, SecretKey)
        clients[name] = RoundClient(
            plan,
            person,
            cipher=client_cipher(plan, key),
            holder=holder_cipher(plan, HolderKey(key)),
        )
    run(wire, clients)
    os.waitpid(child, 0)


def run(wire: socket.socket, clients: dict[str, RoundClient]) -> None:
    """One round: every answer goes to the server, every step's messages come back."""
    values = {
        name: np.full(SHAPE.width, number + 1, np.int64) for number, name in enumerate(clients)
    }
    for client in clients.values():
        give(wire, client.advertise())
    while True:
        send(wire, b"advance")
        step, *parts = receive(wire)
        at = Step(json.loads(step)[0])
        for recipient, data in zip(parts[::2], parts[1::2], strict=True):
            name = recipient.decode()
            client = clients[name]
            for answer in client.receive(data):
                give(wire, answer)
            if at is Step.UPLOAD and name != DROPS_OUT:
                give(wire, client.upload(BlockVector.one_hot(SHAPE, CHOICES[name], values[name])))
        if at is Step.DONE:
            break
    opened = next(client.opened for client in clients.values() if client.opened is not None)
    sums = {pool: int(block[0]) for pool, block in opened.pools.items()}
    print(
        f"clients: {DROPS_OUT} dropped out; counts {opened.head.tolist()}, opened sums by pool "
        f"{sums}; pools of one stay closed"
    )


def give(wire: socket.socket, message: bytes | memoryview) -> None:
    """One message to the server; a refusal would be a fault of this example."""
    send(wire, b"message", message)
    reason = receive(wire)[0]
    assert not reason, reason


if __name__ == "__main__":
    main()
