"""A server that lies about a prepared round, by replays, switched lists, early openings.

Each attack is run against a planted fault as well, where it succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from secure_sum.riding import Riding
from secure_sum.round_helpers import make_vectors, read_end
from secure_sum.two_rounds import ClientRounds

from secure_fl.crypto import envelope
from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum import client as round_client
from secure_fl.secure_sum import store
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.messages import (
    Agreement,
    Boxes,
    Dealers,
    OpenRequest,
    Revealed,
    RoundRefusedError,
    Survivors,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.store import FolderStore, Sealed

SHAPE = BlockShape(pools=3, width=4)
ME = "client-0000"


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def prepared(folder: Path, **rules: Any) -> Riding:
    """Round 0 is over, and round 1 was prepared but not begun."""
    riding = Riding.of(folder, SHAPE, **rules)
    riding.start(riding.plan(0), riding.plan(1))
    riding.run(make_vectors(SHAPE, dict.fromkeys(riding.clients, 0)))
    return riding


def as_server(riding: Riding, plan: RoundPlan, phase: Phase, body: bytes, **chunk: int) -> bytes:
    return sign_envelope(riding.federation._server, plan.header(phase, "server", **chunk), body)


def advertised(riding: Riding, number: int) -> dict[str, bytes]:
    return {
        sender: data
        for sender, recipient, data in riding.sent
        if recipient == "server"
        and data[:4] == b"SFE1"
        and read_header(data).phase == Phase.ADVERTISE
        and read_header(data).round == number
    }


def replayed(folder: Path) -> list[bytes]:
    """A client's answer to a list of round 2 with somebody's keys of round 1."""
    riding = prepared(folder)
    plan = riding.plan(2)
    clients = {name: ClientRounds(riding.make_client(name)) for name in riding.clients}
    fresh = {name: client.begin(plan)[0] for name, client in clients.items()}
    stale = fresh | {"client-0002": advertised(riding, 1)["client-0002"]}
    keys = frames([stale[name] for name in sorted(stale)])
    return clients[ME].receive(as_server(riding, plan, Phase.ADVERTISE, keys))


def test_keys_of_another_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SecureSumError, match="stale"):
        replayed(tmp_path)


def test_believed_keys_of_another_round_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: nobody compares what headers say."""
    monkeypatch.setattr(envelope, "_check_claims", lambda *_: None)
    assert len(replayed(tmp_path)) == 1


def second_list(folder: Path) -> list[bytes]:
    """After a kill, another list for the round that is prepared: without one of the clients."""
    riding = Riding.of(folder, SHAPE, threshold=3)
    plans = riding.plan(0), riding.plan(1)
    riding.start(*plans)
    riding.uploads(make_vectors(SHAPE, dict.fromkeys(riding.clients, 0)))
    for message in riding.server.advance():
        riding.give(message.recipient, riding.clients[message.recipient].receive(message.data))
    riding.again(ME, *plans)
    fewer = [data for name, data in advertised(riding, 1).items() if name != "client-0003"]
    answer = as_server(riding, plans[1], Phase.ADVERTISE, frames(fewer))
    return riding.clients[ME].receive(answer)


def test_a_second_list_is_refused_after_a_kill_too(tmp_path: Path) -> None:
    with pytest.raises(SecureSumError, match="duplicate"):
        second_list(tmp_path)


def test_a_client_that_forgets_the_first_list_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: of a round, only its keys are kept, so it deals shares of one secret twice."""

    def save(self: FolderStore, round_number: int, state: Sealed) -> None: ...

    monkeypatch.setattr(FolderStore, "save", save)
    assert len(second_list(tmp_path)) == 1


def early(folder: Path) -> tuple[Riding, Callable[[], list[bytes]]]:
    """A server that opens the prepared round at a client that has not begun it."""
    riding = prepared(folder, threshold=3)
    plan, client = riding.plan(1), riding.clients[ME]
    ahead = client._ahead
    assert ahead is not None
    everyone = (0, 1, 2, 3)
    view = ahead._book.view(everyone, everyone)

    def attack() -> list[bytes]:
        body = Survivors(view, everyone).encode()
        client.receive(as_server(riding, plan, Phase.AGREE, body))
        agreed = [
            sign_envelope(
                riding.federation.clients[name],
                plan.header(Phase.AGREE, name),
                Agreement(view, 4).encode(),
            )
            for name in riding.clients
        ]
        request = OpenRequest(view, everyone, (), tuple(agreed)).encode()
        return client.receive(as_server(riding, plan, Phase.OPEN_COUNTS, request))

    return riding, attack


def test_a_prepared_round_is_not_opened_before_it_begins(tmp_path: Path) -> None:
    _, attack = early(tmp_path)
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        attack()


def test_clients_that_mind_no_turn_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the order of steps is not looked at."""
    _, attack = early(tmp_path)
    monkeypatch.setattr(RoundClient, "_turn", lambda *_: None)
    [answer] = attack()
    assert Revealed.decode(answer[read_end(answer) :]).shares


def one_question(folder: Path) -> Riding:
    """Two rounds for one question, the second one prepared before the first one is opened."""
    riding = Riding.of(folder, SHAPE, threshold=3, bound=1000, head_bound=1)
    plans = [riding.plan(number, question=bytes([7] * 32)) for number in range(2)]
    riding.start(*plans)
    vectors = make_vectors(SHAPE, dict.fromkeys(riding.clients, 0))
    riding.run(vectors)
    riding.start(plans[1])
    riding.run(vectors)
    return riding


def test_no_second_sum_of_the_same_answers_is_opened_because_it_was_prepared(
    tmp_path: Path,
) -> None:
    with pytest.raises(RoundRefusedError, match="already-opened"):
        one_question(tmp_path)


def test_a_second_sum_of_the_same_answers_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: questions are looked at only when a round begins."""
    honest = store.refuse_opened

    def refuse(opened: Any, question: bytes, by: int | None = None) -> None:
        if by is None:
            honest(opened, question)

    monkeypatch.setattr(store, "refuse_opened", refuse)
    assert len(one_question(tmp_path).opened) > 4


def forked(folder: Path) -> dict[str, str]:
    """Of five, a colluder signs two advertisements; two halves of the others see different ones.

    The server goes on with each half, and asks everybody to agree to the set that fits what it was
    shown; the colluder signs both. Gives who refused to open anything, with the reason.
    """
    riding = Riding.of(folder, SHAPE, clients=5, threshold=4)
    plan, everyone, vectors = riding.plan(1), (0, 1, 2, 3, 4), make_vectors(SHAPE, {ME: 0})
    *names, bad = riding.clients
    honest = [riding.make_client(name)(plan) for name in names]
    twins = [RoundClient(plan, riding.federation.clients[bad]) for _ in range(2)]
    words, double = [client.advertise() for client in honest], [twin.advertise() for twin in twins]
    boxes = list[dict[int, bytes]]()
    for place, player in enumerate([*honest, *twins]):
        shown = as_server(riding, plan, Phase.ADVERTISE, frames([*words, double[_half(place)]]))
        boxes.append(_boxes(player.receive(shown)))
    for place, player in enumerate(honest):
        dealers = [*range(4), 4 + _half(place)]
        mine = tuple((min(d, 4), boxes[d][place]) for d in dealers if d != place)
        body, settled = Boxes(everyone, mine).encode(), Dealers(everyone).encode()
        player.receive(as_server(riding, plan, Phase.SHARE, body))
        player.receive(as_server(riding, plan, Phase.SHARE, settled, chunk=1, chunks=2))
        player.upload(vectors[ME])
    views, agreed = list[bytes](), list[bytes]()
    for player in honest:
        views.append(player._book.view(everyone, everyone))
        body = Survivors(views[-1], everyone).encode()
        agreed += player.receive(as_server(riding, plan, Phase.AGREE, body))
    assert len(set(views)) == 2
    refused, identity = dict[str, str](), riding.federation.clients[bad]
    for name, player, view in zip(names, honest, views, strict=True):
        signed = [each for each, other in zip(agreed, views, strict=True) if other == view]
        own = Agreement(view, 5).encode()
        signed.append(sign_envelope(identity, plan.header(Phase.AGREE, bad), own))
        request = OpenRequest(view, everyone, (), tuple(signed)).encode()
        try:
            player.receive(as_server(riding, plan, Phase.OPEN_COUNTS, request))
        except RoundRefusedError as error:
            refused[name] = error.reason
    return refused


def _boxes(answer: list[bytes]) -> dict[int, bytes]:
    """What a client sealed for the others, by reader."""
    [dealt] = answer
    return dict(Boxes.decode(dealt[read_end(dealt) :]).boxes)


def _half(place: int) -> int:
    return int(place in (2, 3, 5))


def test_different_lists_for_two_halves_open_nothing(tmp_path: Path) -> None:
    assert forked(tmp_path) == {f"client-000{place}": "not-agreed" for place in range(4)}


def test_clients_that_count_no_signatures_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_client, "check_agreed", lambda *_: None)
    assert forked(tmp_path) == {}
