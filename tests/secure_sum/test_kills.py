"""A client or authority that is killed at any moment goes on in the same round when made again.

It answers with the same bytes, and refuses what it would have refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure_sum.parties import Parties
from secure_sum.round_helpers import MASKED, flip, make_vectors, sum_block

from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import FileError, SecureSumError
from secure_fl.secure_sum import store as round_store
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.messages import Agreement, OpenRequest, RoundRefusedError, Survivors
from secure_fl.secure_sum.state import RoundState, state_context
from secure_fl.secure_sum.steps import ClientStep, Message
from secure_fl.secure_sum.store import FolderStore, Sealed

SHAPE = BlockShape(pools=2, width=4, shared=3)
ME = "client-0001"


class KilledError(BaseException):
    """The process is gone."""


def vectors(names: list[str]) -> Mapping[str, BlockVector]:
    return make_vectors(SHAPE, dict.fromkeys(names, 1))


def made(
    folder: Path, protection: str = "masked", key_holder: str = "clients", **rules: Any
) -> Parties:
    return Parties.of(folder, vectors, SHAPE, protection, key_holder, **rules)


def check_sums(parties: Parties) -> None:
    opened = parties.opened()
    assert opened.passing == (1,)
    for block, found in ((0, opened.head), (1, opened.shared), (3, opened.pools[1])):
        names = list(parties.vectors)
        np.testing.assert_array_equal(found, sum_block(SHAPE, parties.vectors, names, block))


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_killed_after_every_step_it_answers_again_with_the_same_bytes(
    protection: str, key_holder: str, tmp_path: Path
) -> None:
    """Before every message there is another client, made from the folder; and one more after it."""
    parties = made(tmp_path, protection, key_holder)
    assert parties.clients[ME].advertise() == parties.again(ME).advertise()
    seen: list[Phase] = []

    def answer(message: Message) -> list[bytes]:
        if message.recipient != ME:
            return parties.answers(message)
        seen.append(read_header(message.data).phase)
        parties.again(ME)
        first = [bytes(data) for data in parties.answers(message)]
        for _ in range(2):
            again = parties.again(ME)
            assert again.receive(message.data) == first
        if first and first[0][:4] != b"SFE1":
            assert again.resend() == first[0]
            assert not again.ready
            with pytest.raises(RoundRefusedError, match="already-begun"):
                again.upload(parties.vectors[ME])
        return first

    server = parties.run(answer=answer)
    check_sums(parties)
    assert seen[:4] == [Phase.ADVERTISE, Phase.SHARE, Phase.SHARE, Phase.AGREE]
    assert len(seen) == (8 if parties.authority is None else 6)
    assert server.refusals == []
    if parties.authority is None:
        assert {applied.claim for applied in server.applied.values()} == {server.applied[ME].claim}


@pytest.mark.parametrize("when", range(11))
def test_killed_before_anything_is_stored_it_has_sent_nothing_and_goes_on(
    when: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th write never happens. What the next life sends is all that was ever sent."""
    parties, writes = made(tmp_path), [0]
    honest = round_store.write_atomically

    def write(path: Path, *arguments: object, **rest: object) -> None:
        if ME in path.parts and path.suffix in (".state", ".upload", ""):
            writes[0] += 1
            if writes[0] == 1 + when:
                raise KilledError
        honest(path, *arguments, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(round_store, "write_atomically", write)

    def twice(work: Callable[[], list[bytes]]) -> list[bytes]:
        try:
            return work()
        except KilledError:
            parties.again(ME)
            return work()

    original = RoundClient.advertise
    monkeypatch.setattr(
        RoundClient,
        "advertise",
        lambda self: twice(lambda: [original(parties.clients[self.name])])[0],
    )
    server = parties.run(answer=lambda message: twice(lambda: parties.answers(message)))
    check_sums(parties)
    assert server.refusals == []
    assert len([name for name, _ in parties.answered if name == ME]) == 8
    assert writes[0] > 1 + when


@pytest.mark.parametrize("gone", [False, True], ids=["lives on", "is made again"])
@pytest.mark.parametrize("when", range(9))
def test_a_message_that_was_cut_short_has_not_come(
    when: int, gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th write but for uploads is interrupted; the message comes again and is answered."""
    parties, writes = made(tmp_path, question=bytes([7] * 32)), [0]
    honest = round_store.write_atomically

    def write(path: Path, *arguments: object, **rest: object) -> None:
        if ME in path.parts and path.suffix in (".state", "") and path.name != "round":
            writes[0] += 1
            if writes[0] == 2 + when:  # the first one begins the round
                raise KeyboardInterrupt
        honest(path, *arguments, **rest)  # type: ignore[arg-type]

    def answer(message: Message) -> list[bytes]:
        try:
            return parties.answers(message)
        except KeyboardInterrupt:
            if gone:
                parties.again(ME)
            return parties.answers(message)

    monkeypatch.setattr(round_store, "write_atomically", write)
    server = parties.run(answer=answer)
    check_sums(parties)
    assert server.refusals == []
    assert len([name for name, _ in parties.answered if name == ME]) == 8
    assert writes[0] > 2 + when


def until(parties: Parties, phase: Phase) -> tuple[Message, list[bytes]]:
    """Run up to the client's answer in a phase, then stop."""
    found: list[tuple[Message, list[bytes]]] = []

    def answer(message: Message) -> list[bytes]:
        answers = parties.answers(message)
        if message.recipient == ME and read_header(message.data).phase == phase:
            found.append((message, answers))
            raise KilledError
        return answers

    with pytest.raises(KilledError):
        parties.run(answer=answer)
    return found[0]


def as_server(parties: Parties, message: Message, body: bytes) -> bytes:
    header = replace(read_header(message.data), body_length=0, body_hash=bytes(32))
    return sign_envelope(parties.federation._server, header, body)


def another_set(parties: Parties, message: Message) -> bytes:
    """A message of a server that asks a client to agree to fewer survivors."""
    book = parties.clients[ME]._book
    fewer = Survivors(book.view((0, 1, 2), (0, 1)), (0, 1))
    return as_server(parties, message, fewer.encode())


def few(folder: Path) -> Parties:
    return Parties.of(folder, vectors, SHAPE, threshold=2)


def test_a_second_set_of_survivors_is_refused_by_the_next_life_too(tmp_path: Path) -> None:
    parties = few(tmp_path)
    message, [agreement] = until(parties, Phase.AGREE)
    for client in (parties.clients[ME], parties.again(ME)):
        with pytest.raises(SecureSumError, match="duplicate"):
            client.receive(another_set(parties, message))
    assert parties.again(ME).receive(message.data) == [agreement]


def test_a_client_that_forgets_what_it_signed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: states are not kept after the set-up."""
    honest = FolderStore.save

    def save(self: FolderStore, round_number: int, state: Sealed) -> None:
        client = state._encode.__self__  # type: ignore[attr-defined]
        if client.step <= ClientStep.READY:
            honest(self, round_number, state)

    monkeypatch.setattr(FolderStore, "save", save)
    parties = few(tmp_path)
    message, [agreement] = until(parties, Phase.AGREE)
    [other] = parties.again(ME).receive(another_set(parties, message))
    views = {Agreement.decode(data[-66:]).view for data in (agreement, other)}
    assert len(views) == 2


def test_both_kinds_of_shares_and_what_left_stay_refused(tmp_path: Path) -> None:
    parties = few(tmp_path)
    message, _ = until(parties, Phase.OPEN_COUNTS)
    request = OpenRequest.decode(message.data[-read_header(message.data).body_length :])
    both = replace(request, dropped=(0,))
    header = parties.plan.header(Phase.OPEN_POOLS, "server")
    data = sign_envelope(parties.federation._server, header, both.encode())
    with pytest.raises(RoundRefusedError, match="both-kinds"):
        parties.again(ME).receive(data)
    assert parties.again(ME)._state.step == ClientStep.LEFT
    with pytest.raises(RoundRefusedError, match="left the round"):
        parties.again(ME).receive(as_server(parties, message, request.encode()))


def test_what_comes_before_a_round_is_begun_keeps_nobody_out_of_it(tmp_path: Path) -> None:
    parties = few(tmp_path)
    header = parties.plan.header(Phase.ADVERTISE, "server")
    early = sign_envelope(parties.federation._server, header, frames([b"", b"", b""]))
    with pytest.raises(SecureSumError):
        parties.clients[ME].receive(early)
    parties.again(ME)
    parties.run()
    check_sums(parties)


def test_an_answer_that_cannot_be_stored_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parties, honest = made(tmp_path), round_store.write_atomically
    full = [False]

    def write(path: Path, *arguments: object, **rest: object) -> None:
        if full[0]:
            raise FileError("No space left", field="", value="", remedy="")
        honest(path, *arguments, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(round_store, "write_atomically", write)

    def answer(message: Message) -> list[bytes]:
        if message.recipient == ME:
            full[0] = True
            for _ in range(2):
                with pytest.raises(FileError):
                    parties.clients[ME].receive(message.data)
            full[0] = False
        return parties.answers(message)

    parties.run(answer=answer)
    check_sums(parties)


# The authority


def test_an_authority_that_is_killed_answers_again_with_the_same_bytes(tmp_path: Path) -> None:
    parties, count = made(tmp_path, "bfv+masked", "authority"), [0]

    def answer(message: Message) -> list[bytes]:
        if message.recipient != "authority":
            return parties.answers(message)
        count[0] += 1
        parties.authority_again()
        first = parties.answers(message)
        for _ in range(2):
            assert parties.authority_again().receive(message.data) == first
        return first

    server = parties.run(answer=answer)
    assert count == [2]
    assert server.refusals == []
    assert set(server.applied) == {"authority"}


def counted(folder: Path) -> tuple[Parties, list[Message]]:
    """Up to what the authority is asked, which it has answered."""
    parties, asked = made(folder, "bfv+masked", "authority"), list[Message]()

    def answer(message: Message) -> list[bytes]:
        asked.extend([message] if message.recipient == "authority" else [])
        return parties.answers(message)

    parties.run(answer=answer)
    return parties, asked


def another(parties: Parties, message: Message) -> bytes:
    """The same request once more, with a frame about its evidence that nobody asked for."""
    body = message.data[-read_header(message.data).body_length :]
    request = OpenRequest.decode(body)
    return as_server(parties, message, replace(request, evidence=request.evidence[:-1]).encode())


def test_what_an_authority_opened_it_opens_no_more_in_its_next_life(tmp_path: Path) -> None:
    parties, asked = counted(tmp_path)
    for message in asked:
        for life in (parties.authority_again(), parties.authority_again()):
            with pytest.raises(SecureSumError, match=r"duplicate|out-of-turn"):
                life.receive(another(parties, message))
    with pytest.raises(SecureSumError, match=r"replayed|out-of-turn"):
        parties.authority_again().receive(asked[0].data)


def test_an_authority_that_forgets_is_found(tmp_path: Path) -> None:
    """Planted: its store is empty in its next life, and it opens the counts a second time."""
    parties, asked = counted(tmp_path)
    parties.folder = tmp_path / "elsewhere"
    assert len(parties.authority_again().receive(asked[0].data)) == 1


# What lies in the folder


def test_a_folder_shows_no_secret_and_the_end_leaves_none_in_it(tmp_path: Path) -> None:
    parties, secrets = made(tmp_path), set[bytes]()

    def answer(message: Message) -> list[bytes]:
        answers, state = parties.answers(message), parties.clients[message.recipient]._state
        keys = [key for key in (state.sealing, state.masking) if key is not None]
        secrets.update(key.private_bytes_raw() for key in keys)
        secrets.update(state.self_seeds)
        secrets.update(share for row in state.rows.values() for share in row)
        for path in (tmp_path / message.recipient).rglob("*.state"):
            assert not any(secret in path.read_bytes() for secret in secrets)
        return answers

    parties.run(answer=answer)
    assert len(secrets) == 3 * (2 + 4 + 3 * 5)
    for name, client in parties.clients.items():
        kept = parties.store(name).saved(0, state_context(parties.plan, name))
        assert kept is not None
        state = RoundState.decode(kept)
        assert (state.sealing, state.masking, state.self_seeds, state.rows) == (None, None, [], {})
        assert state.mine == client._state.mine


def test_a_damaged_or_foreign_store_says_so(tmp_path: Path) -> None:
    parties = few(tmp_path)
    until(parties, Phase.AGREE)
    path = tmp_path / ME / "0.state"
    whole = path.read_bytes()
    for data in (b"", whole[:40], flip(whole, 50), flip(whole, len(whole) - 1), os.urandom(400)):
        path.write_bytes(data)
        with pytest.raises(SecureSumError, match="round store"):
            parties.again(ME)
    path.write_bytes(whole)
    assert parties.again(ME)._state.step == ClientStep.AGREED
    with pytest.raises(SecureSumError, match="round store"):
        parties.again(ME, replace(parties.plan, minimum=3))
    (tmp_path / "client-0000" / "0.state").write_bytes(whole)
    with pytest.raises(SecureSumError, match="round store"):
        parties.again("client-0000")
    parties.keys[ME] = os.urandom(32)
    with pytest.raises(SecureSumError, match="round store"):
        parties.again(ME)


def test_states_have_one_spelling(tmp_path: Path) -> None:
    parties = few(tmp_path)
    until(parties, Phase.OPEN_COUNTS)
    data = parties.clients[ME]._state.encode()
    assert RoundState.decode(data).encode() == data
    for wrong in (b"", b"{}", data[:-1], data.replace(b'"version":1', b'"version":2')):
        with pytest.raises(SecureSumError, match="malformed"):
            RoundState.decode(wrong)
    for key in ("step", "sealing", "rows", "keys", "seen", "survivors", "view", "mine"):
        with pytest.raises(SecureSumError, match="malformed"):
            RoundState.decode(canonical(json.loads(data) | {key: "?"}))


def test_without_a_key_no_state_is_kept(tmp_path: Path) -> None:
    parties = made(tmp_path)
    client = RoundClient(
        parties.plan, parties.federation.clients[ME], store=FolderStore(tmp_path / "bare")
    )
    client.advertise()
    assert {path.name for path in (tmp_path / "bare").iterdir() if path.name[0] != "."} == {"round"}
