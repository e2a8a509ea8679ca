"""What becomes of a round when something breaks in it, under every protection.

| fault | outcome |
|---|---|
| a client dies before its upload has arrived | the round goes on without it, and so do all others |
| a client dies later | it is in this round's sum, and in no other |
| a client answers after the deadline | as if it had died, for this phase; the next round has it |
| a client dies that makes keys | the next one makes them |
| its numbers are not finite, too large, of another shape or pool count | `no-answer`, at once |
| an upload of another length or count, or with a bad signature | refused; as if it had died |
| a message again, of another round or of a stranger | refused, and nothing else |
| fewer than the plan needs | the federation ends: `too-few` |
| masked nonsense in an upload | the federation ends, `still-masked`; nobody can be blamed |
| a client's disk is full | `no-answer` from there on; the round as if it had died |
| a server's disk is full | `FileError`: its process ends, and nothing is sent |
| the server dies | nobody releases anything more; a new one without its record opens nothing |
| the authority dies | the federation ends: `too-few` |
| two servers | clients follow one; no place is opened twice |

In each the run ends within a bounded number of messages; the state is the one of a run in which
the survivors alone take part; whoever is in a sum had paid for it; no round is opened twice.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from federation.parties.faulty import (
    FullDisk,
    NotFinite,
    OtherPools,
    OtherShape,
    Slow,
    TooLarge,
    Wrapped,
    meddled,
    no_space,
    silent,
    with_blocks,
)
from federation.parties.trials import KINDS, Recorded, Trial, chunk_of, trial

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.errors import FileError
from secure_fl.federation.parties.party import Message
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.wire import Wire

VICTIM, NUMBER = "client-0003", 3
ALL, REST = [0, 1, 2, 3, 4], [0, 1, 2, 4]
BEFORE = [
    (Phase.HELLO, 0),
    (Phase.JOIN, 0),
    (Phase.ADVERTISE, 0),
    (Phase.SHARE, 0),
    (Phase.SHARE, 1),
    (Phase.UPLOAD, 0),
]
AFTER = [(Phase.AGREE, 0), (Phase.OPEN_COUNTS, 0), (Phase.OPEN_POOLS, 0), (Phase.APPLY, 0)]


def sends(protection: str, key_holder: str, kind: tuple[Phase, int]) -> bool:
    """Whether clients send such messages."""
    phase = kind[0]
    masked = phase in (Phase.ADVERTISE, Phase.SHARE, Phase.AGREE, Phase.OPEN_COUNTS)
    return not (masked and protection == "plain") and not (
        phase == Phase.APPLY and key_holder == "authority"
    )


def every(kinds: list[tuple[Phase, int]]) -> list[tuple[str, str, tuple[Phase, int]]]:
    return [(*kind, each) for kind in KINDS for each in kinds if sends(*kind, each)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("protection", "key_holder", "kind"), every(BEFORE + AFTER))
def test_a_client_dies(
    protection: str, key_holder: str, kind: tuple[Phase, int], after: bool
) -> None:
    one = trial(protection, key_holder)
    one.run(silent(one.made, VICTIM, *kind, after=after))
    one.check(absent=[NUMBER])
    assert VICTIM in one.made.lost
    assert one.ended == ""
    counted = kind in AFTER or (kind[0] == Phase.UPLOAD and after)
    assert one.survivors == [ALL if counted else REST, REST]


@pytest.mark.parametrize(("protection", "key_holder", "kind"), every([*BEFORE[1:], *AFTER]))
def test_a_client_is_late(protection: str, key_holder: str, kind: tuple[Phase, int]) -> None:
    one = trial(protection, key_holder)
    one.wrap = lambda party, run: (
        Slow(party, *kind, lambda: run.made.server.due) if party.name == VICTIM else party
    )
    one.run()
    one.check()
    assert one.ended == ""
    in_time = kind in AFTER or kind[0] == Phase.JOIN
    assert one.survivors == [ALL if in_time else REST, ALL]
    assert sum(one.made.server.refusals.counts.values()) == (kind[0] != Phase.JOIN)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("phase", [Phase.KEYS, Phase.SECRET])
@pytest.mark.parametrize(("protection", "key_holder"), KINDS[:3])
def test_the_client_dies_that_makes_keys(
    protection: str, key_holder: str, phase: Phase, after: bool
) -> None:
    if phase == Phase.KEYS and protection != "bfv+masked":
        pytest.skip("nothing is encrypted")
    one = trial(protection, key_holder)
    one.run(silent(one.made, "client-0000", phase, after=after))
    one.check(absent=[0])
    assert (one.ended, one.survivors) == ("", [[1, 2, 3, 4]] * 2)


@pytest.mark.parametrize("answers", [NotFinite, OtherShape, OtherPools, TooLarge])
@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_a_client_cannot_answer(
    protection: str, key_holder: str, answers: Callable[[int], Recorded]
) -> None:
    one = trial(protection, key_holder, answers=answers).run()
    one.check()
    assert (one.ended, one.survivors, one.now) == ("", [REST, ALL], 0.0)
    assert [(said["sender"], said["reason"]) for said in one.made.server.said] == [
        (VICTIM, "no-answer")
    ]


UPLOADS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "shorter": (lambda blocks: [block[:-8] for block in blocks], "truncated"),
    "longer": (lambda blocks: [block + bytes(8) for block in blocks], "wrong-length"),
    "a pool too few": (lambda blocks: blocks[:-1], "wrong-chunk"),
    "a pool too many": (lambda blocks: [*blocks, blocks[-1]], "wrong-length"),
    "empty": (lambda blocks: [b""] * len(blocks), "truncated"),
}


@pytest.mark.parametrize("fault", UPLOADS)
@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_an_upload_of_another_form(protection: str, key_holder: str, fault: str) -> None:
    change, reason = UPLOADS[fault]
    one = trial(protection, key_holder)
    made = one.made
    one.run(meddled(VICTIM, Phase.UPLOAD, lambda data: with_blocks(made, VICTIM, data, change)))
    one.check()
    assert (one.ended, one.survivors[0]) == ("", REST)
    assert made.server.refusals.counts == {reason: 1}


def test_masked_nonsense_ends_the_federation_and_nothing_is_applied() -> None:
    """Nobody can tell whose it is, and no round could be trusted after it."""
    one = trial("masked")
    noise = lambda blocks: [b"\xff" * len(block) for block in blocks]  # noqa: E731
    made = one.made
    one.run(meddled(VICTIM, Phase.UPLOAD, lambda data: with_blocks(made, VICTIM, data, noise)))
    one.check()
    assert (one.ended, one.survivors) == ("still-masked", [])
    assert {said["reason"] for said in made.server.said} == {"still-masked"}
    assert "nobody can tell whose" in str(made.server.failed)
    assert "--resume" in str(made.server.failed)


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_messages_that_do_not_belong_there(protection: str, key_holder: str) -> None:
    """Again, of the round before, with another signature, cut off, and a stranger's."""
    one = trial(protection, key_holder)
    made, early, sent = one.made, list[bytes](), list[Message]()
    forger = Wire(Identity.generate(VICTIM), made.roster)
    stranger = Wire(Identity.generate("client-0099"), made.roster)
    forger.plan = stranger.plan = made.plan.digest.hex()

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        if to == "server" and who == VICTIM:
            phase, _, number = chunk_of(data)
            flipped = bytes(data[:-1]) + bytes([data[-1] ^ 1])
            strange = [wire.sign(Phase.WANT, {"place": [0, 0]}) for wire in (forger, stranger)]
            wrong = [flipped, bytes(data[: len(data) // 2]), *strange]
            if number == 1 and phase < Phase.HELLO:
                wrong += early
            elif phase < Phase.HELLO:
                early.append(bytes(data))
            for each in wrong:
                sent.extend(made.server.receive(each))
        return data

    one.run(tap)
    one.check()
    assert sent == []
    assert (one.ended, one.survivors) == ("", [ALL, ALL])
    counts = made.server.refusals.counts
    assert {"unknown-client", "wrong-signature", "truncated"} <= counts.keys()
    assert counts["stale"] >= 2


class Doubled(Wrapped):
    """A party whose every message is sent twice."""

    def receive(self, data: bytes | memoryview) -> list[Message]:
        return [message for message in self.party.receive(data) for _ in range(2)]


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_everything_is_sent_twice(protection: str, key_holder: str) -> None:
    one = trial(protection, key_holder)
    one.wrap = lambda party, _: Doubled(party)
    one.run()
    one.check()
    assert (one.ended, one.survivors, one.now) == ("", [ALL, ALL], 0.0)


@pytest.mark.parametrize("phase", [Phase.HELLO, Phase.ADVERTISE, Phase.SHARE, Phase.UPLOAD])
@pytest.mark.parametrize(("protection", "key_holder"), KINDS[1:])
def test_under_quorum(protection: str, key_holder: str, phase: Phase) -> None:
    """Four of five must survive: two that are lost end it, whenever that is before the sum."""
    one = trial(protection, key_holder)
    first, second = (silent(one.made, name, phase) for name in ("client-0002", VICTIM))

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        seen = first(who, to, data)
        return None if seen is None else second(who, to, seen)

    one.run(tap)
    one.check()
    assert (one.ended, one.survivors) == ("too-few", [])
    for client in (0, 1, 4):
        assert one.made.clients[client].over


def disk_full_at(one: Trial, write: int) -> FullDisk:
    one.made.clients[NUMBER]._store = store = FullDisk(write)
    one.run()
    one.check()
    return store


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_a_client_has_no_space_left(protection: str, key_holder: str) -> None:
    """At each write of its store in turn, until there are enough."""
    outcomes = list[tuple[str, list[list[int]]]]()
    for write in range(60):
        one = trial(protection, key_holder, rounds=1)
        store = disk_full_at(one, write)
        if not store.failed:
            break
        outcomes.append((one.ended, one.survivors))
        assert {said["reason"] for said in one.made.server.said} == {"no-answer"}
    assert not store.failed
    without = outcomes.index(("", [ALL]))
    assert 0 < without < len(outcomes)
    assert outcomes == [("", [REST])] * without + [("", [ALL])] * (len(outcomes) - without)


def test_a_client_whose_ledger_cannot_be_written_answers_nothing() -> None:
    one = trial("masked")

    def full(releases: object) -> None:
        raise no_space()

    client = one.made.clients[NUMBER]
    object.__setattr__(client._site, "admit", full)
    one.run()
    one.check()
    assert (one.ended, one.survivors) == ("", [REST, REST])
    assert one.books[NUMBER].answered == []


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_a_server_has_no_space_left(protection: str, key_holder: str) -> None:
    """At each line of its transcript in turn: the error comes out, and nothing was sent."""
    for line in range(40):
        one, written = trial(protection, key_holder, rounds=1), list[str]()

        def write(kind: str, *_: object, line: int = line, written: list[str] = written) -> None:
            if len(written) == line:
                raise no_space()
            written.append(kind)

        one.made.server._journal = Journal(write)
        try:
            one.run()
        except FileError:
            states = {client.state.place.round for client in one.made.clients if client.state}
            assert states <= {0}
            continue
        break
    assert 6 < line < 40
    assert one.ended == ""
