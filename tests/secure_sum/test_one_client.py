"""One client, or one bit on the way, stops no round: it is left out by everybody alike, or its part
is done without; and it is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from secure_sum.round_helpers import (
    MASKED,
    Tape,
    check_exact,
    each_alone,
    flip,
    make_federation,
    make_vectors,
    read_end,
)

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import Outcome
from secure_fl.crypto import shares as shamir
from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.sealing import seal_with
from secure_fl.crypto.shares import SHARE_BYTES
from secure_fl.secure_sum import client, setup
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.graph import draw
from secure_fl.secure_sum.key_directory import TAG_BYTES, KeyBook
from secure_fl.secure_sum.messages import Advertise, Boxes, Dealers, RoundReason, RoundRefusedError
from secure_fl.secure_sum.share_box import without_shares

SHAPE = BlockShape(pools=2, width=5)
CLIENTS, BAD = 9, "client-0005"
P = 2**255 - 19
ORDER_8 = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
USELESS = [
    *(number.to_bytes(32, "little") for number in (0, 1, P - 1, P, P + 9)),
    ORDER_8,
    bytes(31) + b"\xff",
]
"""X25519 keys of low order (Langley, Hamburg and Turner, RFC 7748, section 7), and spellings of
others that are not their one.
"""


class Meddling(Tape):
    """Somebody whose messages of one phase become others, signed by the sender as before or not
    at all.
    """

    def __init__(
        self,
        phase: Phase,
        edit: Callable[[bytes], bytes],
        *,
        resigned: bool = True,
        sender: str = BAD,
        recipient: str = "",
        chunk: int = 0,
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.phase, self.edit, self.resigned, self.sender, self.recipient = (
            phase,
            edit,
            resigned,
            sender,
            recipient,
        )
        self.federation: EmbeddedFederation | None = None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        concerned = (
            sender == self.sender and self.recipient in ("", recipient) and data[:4] == b"SFE1"
        )
        if self.federation is None or not concerned:
            return data
        if (read_header(data).phase, read_header(data).chunk) != (self.phase, self.chunk):
            return data
        if not self.resigned:
            return self.edit(data)
        header = replace(read_header(data), body_length=0, body_hash=bytes(32))
        return sign_envelope(
            self.federation.clients[sender], header, self.edit(data[read_end(data) :])
        )


def run(
    tape: Meddling, protection: str = "masked", key_holder: str = "clients", **rules: object
) -> Outcome:
    tape.federation = federation = make_federation(protection, key_holder, CLIENTS, tape)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    outcome = federation.round(0, vectors, SHAPE, **rules)
    check_exact(outcome, SHAPE, vectors, list(outcome.survivors), 2)
    return outcome


def key(place: str, value: bytes) -> Callable[[bytes], bytes]:
    return lambda body: replace(Advertise.decode(body), **{place: value}).encode()


def boxes(change: Callable[[bytes], bytes], readers: int = CLIENTS) -> Callable[[bytes], bytes]:
    def edit(body: bytes) -> bytes:
        dealt = Boxes.decode(body).boxes
        return Boxes(
            (),
            tuple(
                (reader, change(box) if place < readers else box)
                for place, (reader, box) in enumerate(dealt)
            ),
        ).encode()

    return edit


@pytest.mark.parametrize("value", USELESS)
@pytest.mark.parametrize("place", ["sealing", "masking"])
def test_keys_of_no_use_leave_their_sender_out(place: str, value: bytes) -> None:
    outcome = run(Meddling(Phase.ADVERTISE, key(place, value)))
    assert BAD not in outcome.survivors
    assert len(outcome.survivors) == CLIENTS - 1
    assert [(refusal.sender, refusal.reason) for refusal in outcome.refusals] == [
        (BAD, "wrong-key")
    ]
    assert outcome.missed[BAD] == "advertise"


@pytest.mark.parametrize("place", ["sealing", "masking"])
def test_another_clients_key_leaves_the_copyist_out(place: str) -> None:
    seen: list[Advertise] = []

    class Copyist(Meddling):
        def change(self, sender: str, recipient: str, data: bytes) -> bytes:
            if (
                sender == "client-0000"
                and data[:4] == b"SFE1"
                and read_header(data).phase == Phase.ADVERTISE
            ):
                seen.append(Advertise.decode(data[read_end(data) :]))
            return super().change(sender, recipient, data)

    outcome = run(Copyist(Phase.ADVERTISE, lambda body: key(place, seen[0].masking)(body)))
    assert {"client-0000", BAD} & set(outcome.survivors) == {"client-0000"}
    assert [(refusal.sender, refusal.reason) for refusal in outcome.refusals] == [
        (BAD, "duplicate")
    ]


CLOSED: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda box: bytes(len(box)),
    "one bit": lambda box: flip(box, 4 * TAG_BYTES + 40),
    "one bit of a tag": lambda box: flip(box, 3),
    "another box": lambda box: (
        box[: 4 * TAG_BYTES] + seal_with(os.urandom(32), bytes(4 * SHARE_BYTES), b"context")
    ),
}


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
@pytest.mark.parametrize("what", list(CLOSED))
def test_boxes_that_do_not_open_leave_their_dealer_out(
    what: str, protection: str, key_holder: str
) -> None:
    outcome = run(Meddling(Phase.SHARE, boxes(CLOSED[what])), protection, key_holder)
    assert len(outcome.survivors) == CLIENTS - 1
    assert BAD not in outcome.survivors
    assert outcome.missed[BAD] == "share"
    assert (BAD, "share", RoundReason.BOXES_CLOSED) in [
        (refusal.sender, refusal.phase, refusal.reason) for refusal in outcome.refusals
    ]


@pytest.mark.parametrize(
    "change",
    [lambda share: flip(share, 0), lambda share: flip(share, 2), lambda share: flip(share, 4)],
    ids=["version", "threshold", "index"],
)
def test_boxes_that_open_and_hold_no_shares_do_so_too(
    change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = KeyBook.close_box

    def close_box(
        self: KeyBook, key: bytes, dealer: int, reader: int, rows: Sequence[bytes]
    ) -> bytes:
        return honest(
            self,
            key,
            dealer,
            reader,
            [change(row) for row in rows] if self.names[dealer] == BAD else rows,
        )

    monkeypatch.setattr(KeyBook, "close_box", close_box)
    outcome = run(Meddling(Phase.SHARE, bytes))
    assert outcome.missed[BAD] == "share"
    assert len(outcome.survivors) == CLIENTS - 1


@pytest.mark.parametrize("size", [0, 1, 300, 1200])
def test_boxes_of_another_length_cost_their_dealer_and_none_of_their_readers(size: int) -> None:
    """Large ones for a few readers would make what these are sent longer than they allow: they
    would leave, and the round end.
    """
    outcome = run(Meddling(Phase.SHARE, boxes(lambda box: bytes(size), 3)))
    assert outcome.missed == {BAD: "share"}
    assert [(refusal.sender, refusal.reason) for refusal in outcome.refusals] == [
        (BAD, "wrong-length")
    ]


@pytest.mark.parametrize("readers", [1, 2])
def test_a_few_closed_boxes_cost_nothing(readers: int) -> None:
    """t of the holders have shares: everybody stays, and a client that complains of all others
    drives nobody out.
    """
    outcome = run(Meddling(Phase.SHARE, boxes(lambda box: bytes(len(box)), readers)))
    assert len(outcome.survivors) == CLIENTS

    others = Dealers(tuple(position for position in range(CLIENTS) if position != 5)).encode()
    outcome = run(Meddling(Phase.SHARE, lambda _: others, chunk=1))
    assert len(outcome.survivors) == CLIENTS
    assert outcome.missed == {}


def test_a_complaint_comes_before_uploads_or_not_at_all() -> None:
    federation = make_federation("masked", clients=3)
    running = federation.begin(0, SHAPE)
    header = running.plan.header(Phase.SHARE, "client-0001", chunk=1, chunks=2)
    late = sign_envelope(federation.clients["client-0001"], header, Dealers((2,)).encode())
    assert running.server.receive(late) == "wrong-phase"
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for name, vector in vectors.items():
        assert running.clients[name].ready
        assert running.add(running.protect(name, vector)) is None
        assert not running.clients[name].ready
    check_exact(running.open(), SHAPE, vectors, list(vectors), 2)


def test_who_says_nothing_of_its_boxes_is_left_out_before_anybody_masks_with_it() -> None:
    class Silent(Tape):
        def change(self, sender: str, recipient: str, data: bytes) -> bytes:
            settles = sender == BAD and data[:4] == b"SFE1" and read_header(data).chunk == 1
            return b"" if settles else data

    federation = make_federation("masked", clients=CLIENTS, tape=Silent())
    running = federation.begin(0, SHAPE)
    assert running.silent(BAD, Phase.UPLOAD)
    assert not running.clients[BAD].ready
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for name in vectors.keys() - {BAD}:
        assert running.add(running.protect(name, vectors[name])) is None
    outcome = running.open()
    check_exact(outcome, SHAPE, vectors, sorted(vectors.keys() - {BAD}), 2)
    assert outcome.missed == {BAD: "share"}


def test_who_is_left_out_when_boxes_are_disputed() -> None:
    """The dealer whose boxes stay closed to so many that t cannot be reached; never those that one
    client accuses.
    """
    plan = make_federation("masked", clients=9).begin(0, SHAPE).plan
    book = KeyBook(plan, plan.cohort, (), draw([bytes([number]) for number in range(9)]))
    everyone = tuple(range(9))
    assert book.threshold == 7
    assert without_shares(book, everyone, {}) == set()
    assert without_shares(book, everyone, dict.fromkeys((0, 1), (3,))) == set()
    assert without_shares(book, everyone, dict.fromkeys((0, 1, 2), (3,))) == {3}
    assert without_shares(book, everyone, {4: (0, 1, 2, 3, 5, 6, 7, 8)}) == set()
    assert without_shares(book, everyone, {4: (0, 1, 2, 3), 5: (0, 1, 2, 3), 6: (0, 1, 2, 3)}) <= {
        4,
        5,
        6,
        0,
        1,
        2,
        3,
    }
    tight = KeyBook(plan, plan.cohort[:3], (), draw([b"a", b"b", b"c"]))
    assert without_shares(tight, (0, 1, 2), {0: (1, 2)}) == {0}


@pytest.mark.parametrize(
    "phase", [Phase.ADVERTISE, Phase.SHARE, Phase.AGREE, Phase.OPEN_COUNTS, Phase.OPEN_POOLS]
)
@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_one_bit_of_a_client_costs_that_client(
    phase: Phase, protection: str, key_holder: str
) -> None:
    outcome = run(
        Meddling(phase, lambda data: flip(data, len(data) - 1), resigned=False),
        protection,
        key_holder,
    )
    refused = [refusal for refusal in outcome.refusals if refusal.by == "server"]
    assert [(refusal.sender, refusal.phase) for refusal in refused] == [(BAD, phase.name.lower())]
    assert (BAD in outcome.survivors) == (phase >= Phase.AGREE)


@pytest.mark.parametrize(
    "phase", [Phase.ADVERTISE, Phase.SHARE, Phase.AGREE, Phase.OPEN_COUNTS, Phase.OPEN_POOLS]
)
def test_one_bit_on_the_way_to_a_client_costs_that_client(phase: Phase) -> None:
    outcome = run(
        Meddling(
            phase,
            lambda data: flip(data, len(data) - 1),
            resigned=False,
            sender="server",
            recipient=BAD,
        )
    )
    assert [
        (refusal.by, refusal.sender) for refusal in outcome.refusals if refusal.by != "server"
    ] == [(BAD, "server")]
    assert (BAD in outcome.survivors) == (phase >= Phase.AGREE)


def test_shares_of_no_polynomial_name_their_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes open and shares are well formed, yet no secret comes of them: the round ends, and the
    next one knows whom to leave out.
    """
    honest, dealer = shamir.split, []

    def dealt(secret: bytes, *arguments: object, **rest: object) -> object:
        shares = honest(secret, *arguments, **rest)  # type: ignore[arg-type]
        dealer.append(secret)
        return (
            [replace(share, value=share.value + share.index**50) for share in shares]
            if len(dealer) <= 4
            else shares
        )

    monkeypatch.setattr(setup, "split_many", each_alone(dealt))
    federation = make_federation("masked", clients=CLIENTS)
    with pytest.raises(RoundRefusedError, match="false-shares") as caught:
        federation.round(0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE)
    assert caught.value.blamed == ("client-0000",)


def test_a_seed_other_than_the_one_committed_to_names_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = client.RoundClient._share

    def share(self: client.RoundClient, data: bytes) -> bytes:
        sent = self._public()
        if self.name == BAD:
            self._state.self_seeds[0] = os.urandom(32)
            monkeypatch.setattr(self, "_public", lambda: sent)
        return honest(self, data)

    monkeypatch.setattr(client.RoundClient, "_share", share)
    federation = make_federation("masked", clients=CLIENTS)
    with pytest.raises(RoundRefusedError, match="not-proved") as caught:
        federation.round(0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE)
    assert caught.value.blamed == (BAD,)
