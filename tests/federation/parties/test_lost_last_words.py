"""A server that is killed with its last words on the way: everybody comes to the last state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.engines.queue import Here, Queue
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import Post, route

KINDS = [("plain", "clients"), ("masked", "clients"), ("bfv+masked", "clients")]
KINDS += [("bfv+masked", "authority")]


def lost(message: Message, heard: bool) -> bool:
    """All of them, or but for what shows one client alone that the others agree."""
    kept = heard and message.to == "client-0002" and route(message.data).phase != Phase.END
    return not kept


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
@pytest.mark.parametrize("heard", [False, True])
def test_nobody_is_left_without_the_last_state(
    tmp_path: Path, protection: str, key_holder: str, heard: bool
) -> None:
    last_words_lost(tmp_path, protection, key_holder, heard, None)


def test_who_cannot_give_the_state_is_not_waited_for(tmp_path: Path) -> None:
    refused = list[str]()
    last_words_lost(tmp_path, "masked", "clients", False, refused)
    assert refused


def cannot(client: FederationClient, refused: list[str]) -> None:
    """A client that has lost its key, and says so."""

    def refuse(post: Post) -> list[bytes]:
        refused.append(client.name)
        raise RefusedError(Reason.NO_KEY, "cannot seal it", "place", 0, "ask another")

    client._on_give = refuse  # type: ignore[method-assign]


def last_words_lost(
    tmp_path: Path, protection: str, key_holder: str, heard: bool, refused: list[str] | None
) -> None:
    made, dead = Federation(tmp_path, Kind(protection, key_holder, Toy(4, 2))), list[bool]()
    members = [made.client(name) for name in made.names]
    if refused is not None:
        cannot(members[0], refused)
    others = [*members, *([made.keeper()] if made.authority else [])]
    server = made.server()
    receive = server.receive

    def last(data: bytes | memoryview) -> list[Message]:
        sent = receive(data)
        if any(route(message.data).phase == Phase.END for message in sent):
            dead.append(True)
            return [message for message in sent if not lost(message, heard)]
        return sent

    server.receive = last  # type: ignore[method-assign]
    Queue([Here([server]), Here(others)], "server").run(until=lambda: bool(dead))
    server.folder.close()
    again = made.server()
    for party in others:
        party.back()
    queue = Queue([Here([again]), Here(others)], "server")
    queue.run()
    assert queue.now < 1.0, "nobody waits for whoever cannot give the state"
    assert all(party.over for party in others)
    pools = [client.state.tensors["pools"] for client in members if client.state]
    assert len(pools) == 4
    assert all(torch.equal(pool, pools[0]) for pool in pools)
    for party in (again, *others):
        party.folder.close()
