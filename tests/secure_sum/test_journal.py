"""A server that is killed at any step goes on in the same round, and says the same bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from secure_sum.parties import Parties
from secure_sum.round_helpers import MASKED, flip, make_vectors
from secure_sum.test_kills import SHAPE, check_sums

from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import FileError, SecureSumError
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.journal import RoundJournal, Sums, forget_after
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Message, Step


def vectors(names: list[str]) -> Mapping[str, BlockVector]:
    return make_vectors(SHAPE, dict.fromkeys(names, 1))


def made(folder: Path, protection: str = "masked", key_holder: str = "clients") -> Parties:
    return Parties.of(
        folder / "clients", vectors, SHAPE, protection, key_holder, clients=4, threshold=3
    )


def again(parties: Parties, folder: Path) -> tuple[RoundServer, list[Message]]:
    server = parties.server()
    return server, server.resume(RoundJournal(folder, parties.plan))


@pytest.mark.parametrize(("protection", "key_holder"), [*MASKED, ("plain", "clients")])
def test_killed_after_every_step_it_sends_the_same_and_goes_on(
    protection: str, key_holder: str, tmp_path: Path
) -> None:
    parties, folder = made(tmp_path, protection, key_holder), tmp_path / "server"
    steps: list[Step] = []

    def advance(server: RoundServer) -> tuple[RoundServer, list[Message]]:
        messages = server.advance()
        next_one, resent = again(parties, folder)
        assert resent == messages
        assert (next_one.step, next_one.waiting) == (server.step, server.waiting)
        assert next_one.survivors == server.survivors
        assert (next_one.view, next_one.uploads) == (server.view, server.uploads)
        steps.append(server.step)
        return next_one, resent

    server, messages = again(parties, folder)
    assert messages == []
    if protection == "plain":
        for name, client in parties.clients.items():
            parties.give(server, name, bytes(client.upload(parties.vectors[name])))
        while server.step != Step.DONE:
            server, messages = advance(server)
            for message in messages:
                for data in parties.clients[message.recipient].receive(message.data):
                    parties.give(server, message.recipient, data)
    else:
        server = parties.run(server, advance=advance)
    check_sums(parties)
    assert steps[-1] == Step.DONE
    expected = {("plain", "clients"): 3, ("bfv+masked", "authority"): 9}
    assert len(steps) == expected.get((protection, key_holder), 8)
    assert (folder / "0.journal").is_file()


def test_killed_while_uploads_come_in_it_gets_the_same_ones_again(tmp_path: Path) -> None:
    parties, folder, killed = made(tmp_path), tmp_path / "server", [0]
    server = parties.server()
    server.resume(RoundJournal(folder, parties.plan))
    for name, client in parties.clients.items():
        parties.give(server, name, client.advertise())
    uploads: dict[str, bytes] = {}
    while server.step != Step.DONE:
        messages = server.advance()
        if server.step == Step.UPLOAD:
            for message in messages[:2]:
                [uploads[message.recipient]] = map(bytes, parties.answers(message))
                assert server.receive(uploads[message.recipient]) is None
            server, messages = again(parties, folder)
            assert len(server.waiting) == 4
            killed[0] += 1
        for message in messages:
            for data in parties.answers(message):
                assert bytes(data) == uploads.get(message.recipient, bytes(data)) or killed[0] == 0
                uploads.pop(message.recipient, None)
                parties.give(server, message.recipient, data)
    assert killed == [1]
    check_sums(parties)


def test_messages_that_came_before_the_kill_are_not_asked_for_again(tmp_path: Path) -> None:
    parties, folder = made(tmp_path), tmp_path / "server"
    server, _ = again(parties, folder)
    names = list(parties.clients)
    for name in names[:3]:
        assert server.receive(parties.clients[name].advertise()) is None
    assert server.receive(b"nothing") is not None
    server, messages = again(parties, folder)
    assert messages == []
    assert server.waiting == {names[3]}
    assert server.receive(parties.clients[names[0]].advertise()) == "replayed"
    with (folder / "0.journal").open("ab") as file:
        file.write(b"\x01\x00\x00\x01\x00half")
    server, _ = again(parties, folder)
    assert server.waiting == {names[3]}
    parties.give(server, names[3], parties.clients[names[3]].advertise())
    assert again(parties, folder)[0].waiting == frozenset()


def test_a_round_that_failed_has_failed_for_the_next_life_too(tmp_path: Path) -> None:
    parties, folder = made(tmp_path), tmp_path / "server"
    server, _ = again(parties, folder)
    assert server.receive(parties.clients["client-0000"].advertise()) is None
    with pytest.raises(RoundRefusedError, match="too-few"):
        server.advance()
    with pytest.raises(RoundRefusedError, match="too-few"):
        again(parties, folder)


def test_damaged_and_foreign_journals_are_typed(tmp_path: Path) -> None:
    parties, folder = made(tmp_path), tmp_path / "server"

    def advance(server: RoundServer) -> tuple[RoundServer, list[Message]]:
        return server, server.advance()

    parties.run(again(parties, folder)[0], advance=advance)
    for name in ("0.journal", "0.sums"):
        whole = (folder / name).read_bytes()
        for data in (b"", flip(whole, 20), flip(whole, len(whole) // 2), os.urandom(300)):
            (folder / name).write_bytes(data)
            with pytest.raises(SecureSumError, match="round journal"):
                again(parties, folder)
        (folder / name).write_bytes(whole)
    assert again(parties, folder)[0].step == Step.DONE
    with pytest.raises(SecureSumError, match="another plan"):
        RoundJournal(folder, replace(parties.plan, minimum=3)).entries()


def test_a_full_disk_stops_the_server_where_it_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parties, folder = made(tmp_path), tmp_path / "server"
    server, _ = again(parties, folder)
    first, *others = (client.advertise() for client in parties.clients.values())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(FileError, match="No space"):
            server.receive(first)
    for data in others:
        with pytest.raises(FileError, match="make the server again"):
            server.receive(data)
    with pytest.raises(FileError):
        server.advance()
    assert len(again(parties, folder)[0].waiting) == 4


def test_old_journals_go_and_so_do_those_of_rounds_nobody_heard_of(tmp_path: Path) -> None:
    parties = made(tmp_path)
    folder = tmp_path / "server"
    for number in range(5):
        RoundJournal(folder, replace(parties.plan, round=number)).entries()
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}.journal" for n in (2, 3, 4)]
    forget_after(folder, 3)
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}.journal" for n in (2, 3)]


def test_sums_are_what_they_were(tmp_path: Path) -> None:
    parties, kept = made(tmp_path), list[Sums]()

    def advance(server: RoundServer) -> tuple[RoundServer, list[Message]]:
        if server.step == Step.UPLOAD:
            kept.append(server._sums())
        return server, server.advance()

    parties.run(advance=advance)
    data = kept[0].encode()
    assert Sums.decode(data).encode() == data
    for wrong in (data[:-1], flip(data, 0), flip(data, len(data) - 1)):
        with pytest.raises((RefusedError, ValueError)):
            Sums.decode(wrong)
