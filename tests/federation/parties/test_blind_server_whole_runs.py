"""What a server holds and wrote after a whole federation, where each value can be told apart.

Every client's vector is unlike every other number in the process, so that its bytes, its values as
Python numbers, and the models that come of it are found wherever the server could have kept them:
in its objects, in what it wrote into its transcript, and in that transcript's file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation.parties.test_blind_server import reachable, secrets_at_server
from federation.parties.toy_federation import Made, make

from secure_fl.federation.parties.server_record import Journal
from secure_fl.he.ceremony import GrantedKey
from secure_fl.he.keys import SecretKey

HOLDERS = ["clients", "authority"]


def secrets_of(made: Made) -> list[bytes]:
    """Bytes that a server must not have: models, in each layout, and every key."""
    found = list[bytes]()
    for client in made.clients:
        assert client.state is not None
        assert client._seat is not None
        pools = client.state.tensors["pools"]
        found += [pools[0].numpy().tobytes(), pools[0].float().numpy().tobytes()]
        found.append(client.state.encode()[-pools.numel() * 8 :])
        found.append(client._seat.keyring.secret)
        key = client._seat.keyring._granted
        if isinstance(key, GrantedKey) and isinstance(key.key, SecretKey):
            found.append(key.key.data)
    found += [one.hex().encode() for one in tuple(found) if len(one) == 32]
    return [one for one in found if len(one) >= 24]


def vectors(start: object, written: Sequence[object]) -> list[Any]:
    """Lists, tuples and arrays of numbers that could be a model's or a choice."""
    held = list[Any]()
    for one in [*reachable(start), *(each for part in written for each in reachable(part))]:
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            held.append(one)
        if isinstance(one, list | tuple) and len(one) >= 2:
            floats = [value for value in one if isinstance(value, float) and math.isfinite(value)]
            if len(floats) == len(one) and any(floats):
                held.append(one)
        if isinstance(one, dict) and one:
            clients = all(isinstance(name, str) and name.startswith("client-") for name in one)
            choices = {value for value in one.values() if type(value) is int}
            if clients and choices and len(choices) <= 2:
                held.append(one)  # a small number of each client: a choice
    return held


def leaks(made: Made, written: Sequence[object], folder: bytes = b"") -> list[Any]:
    """Everything that a server has and must not have."""
    secrets = secrets_of(made)
    own = {id(one) for one in reachable(made.identities["server"])}
    texts = [
        bytes(one)
        for one in (
            *reachable(made.server),
            *(each for part in written for each in reachable(part)),
        )
        if isinstance(one, bytes | bytearray | memoryview) and id(one) not in own
    ]
    found: list[Any] = [text for text in [*texts, folder] if any(one in text for one in secrets)]
    return [*found, *vectors(made.server, written), *secrets_at_server(made)]


def run_writing(key_holder: str, path: Path) -> tuple[Made, list[Any]]:
    """A whole run, and what its server wrote, to the journal and to a file."""
    made = make(5, "bfv+masked", key_holder, rounds=2)
    written = list[Any]()

    def write(kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes]) -> None:
        written.append((kind, dict(facts), list(evidence)))
        line = {"kind": kind, **facts, "evidence": [one.hex() for one in evidence]}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    made.server._journal = Journal(write)
    made.run()
    assert made.server.failed is None
    return made, written


@pytest.mark.parametrize("key_holder", HOLDERS)
def test_nothing_is_left_at_a_server_after_a_whole_run(key_holder: str, tmp_path: Path) -> None:
    path = tmp_path / "transcript"
    made, written = run_writing(key_holder, path)
    assert len(written) > 6
    assert leaks(made, written, path.read_bytes()) == []


PLANTS: dict[str, Any] = {
    "a model": lambda made: made.clients[0].state.tensors["pools"][0].numpy(),
    "its bytes": lambda made: b"xx" + made.clients[0].state.tensors["pools"][0].numpy().tobytes(),
    "its values": lambda made: made.clients[0].state.tensors["pools"][0].tolist(),
    "its bytes in a view": lambda made: memoryview(made.clients[0].state.encode()),
    "the sealing key": lambda made: made.clients[2]._seat.keyring.secret,
    "that key in hex": lambda made: made.clients[2]._seat.keyring.secret.hex().encode(),
    "choices": lambda made: {"client-0000": 1, "client-0001": 0},
    "an identity": lambda made: made.identities["client-0001"],
}


@pytest.mark.parametrize("where", ["object", "journal"])
@pytest.mark.parametrize("what", PLANTS)
def test_what_is_planted_is_found(what: str, where: str) -> None:
    made = make(4, "masked", rounds=1)
    made.run()
    planted = PLANTS[what](made)
    written = [("sum", {"more": planted}, [])] if where == "journal" else []
    if where == "journal" and what == "an identity":
        pytest.skip("no identity can be written down")
    assert leaks(made, []) == []
    if where == "object":
        made.server._attempt = {"a": [planted]}  # type: ignore[assignment]
    assert leaks(made, written) != []


def test_a_server_that_failed_holds_nothing_either() -> None:
    made = make(5, "bfv+masked", "authority", rounds=2)
    made.lost = {"client-0002", "client-0003"}
    made.run()
    assert made.server.failed is not None
    assert secrets_at_server(made) == []
    assert vectors(made.server, []) == []
