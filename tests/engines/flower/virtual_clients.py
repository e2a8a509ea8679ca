"""Clients of the toy federation with folders, each made again for every exchange."""

from __future__ import annotations

import json
import os
from pathlib import Path

from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy, identities

from secure_fl.crypto.identities import Identity
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.server_store import KeptServer

MAKE = "engines.flower.virtual_clients:make_client"
CLIENTS, ROUNDS = 4, 2


def prepared(folder: Path) -> tuple[KeptServer, dict[str, bytes]]:
    """The server, and what each client is made from."""
    for name, one in identities(CLIENTS).items():
        one.save(folder / "people" / name)
    made = _federation(folder)
    facts = {"folder": str(folder), "state": os.environ["SECURE_FL_STATE"]}
    data = {name: json.dumps({**facts, "name": name}).encode() for name in made.names}
    return made.server(), data


def make_client(data: bytes) -> KeptClient:
    facts = json.loads(data)
    os.environ["SECURE_FL_STATE"] = facts["state"]
    return _federation(Path(facts["folder"])).client(facts["name"])


def _federation(folder: Path) -> Federation:
    names = ["coordinator", "server", "authority"]
    names += [f"client-{number:04d}" for number in range(CLIENTS)]
    people = {name: Identity.load(folder / "people" / name) for name in names}
    kind = Kind("bfv+masked", program=Toy(CLIENTS, ROUNDS))
    return Federation(folder / "parties", kind, people=people)
