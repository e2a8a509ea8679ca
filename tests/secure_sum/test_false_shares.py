"""Shares that give no secret, and who is to blame for them: the dealer that dealt them so, or the
holder that shows another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from secure_sum.round_helpers import check_exact, each_alone, make_federation, make_vectors
from secure_sum.test_one_client import BAD, CLIENTS, SHAPE, Meddling

from bench.secure_sum.embedded_round import Outcome
from secure_fl.crypto import shares as shamir
from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.shares import Share
from secure_fl.secure_sum import client, setup
from secure_fl.secure_sum.key_directory import KeyBook
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Advertise,
    Boxes,
    Revealed,
    RoundReason,
    RoundRefusedError,
)

TWO_DROP_OUTS = {"client-0007": Phase.UPLOAD, "client-0008": Phase.UPLOAD}
"""Of nine with t = 7: as many as may."""


def whole_round(tape: Meddling | None = None, **rules: object) -> Outcome:
    federation = make_federation("masked", clients=CLIENTS, tape=tape)
    if tape is not None:
        tape.federation = federation
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    outcome = federation.round(0, vectors, SHAPE, **rules)
    check_exact(outcome, SHAPE, vectors, list(outcome.survivors), 2)
    return outcome


def shows(places: tuple[int, ...], owners: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """Another share of these secrets."""

    def edit(body: bytes) -> bytes:
        message = Revealed.decode(body)
        another = [
            (
                place,
                owner,
                replace(Share.from_bytes(share), value=7).to_bytes()
                if place in places and owner in owners
                else share,
            )
            for place, owner, share in message.shares
        ]
        return replace(message, shares=tuple(another)).encode()

    return edit


@pytest.mark.parametrize("phase", [Phase.OPEN_COUNTS, Phase.OPEN_POOLS])
@pytest.mark.parametrize("owners", [(0,), (0, 3, 4), tuple(range(CLIENTS))])
def test_a_holder_that_shows_another_share_blames_nobody_but_itself(
    phase: Phase, owners: tuple[int, ...]
) -> None:
    """Where every share is needed, a false one leaves no secret: then its holder is named, and
    never the client whose secret it is.
    """
    places = (MASK_KEY, 0) if phase == Phase.OPEN_COUNTS else (1, 2)
    outcome = whole_round(Meddling(phase, shows(places, owners)))
    assert [(refusal.sender, refusal.reason) for refusal in outcome.refusals] == [
        (BAD, RoundReason.FALSE_SHARES)
    ]
    with pytest.raises(RoundRefusedError, match="too-few") as caught:
        whole_round(Meddling(phase, shows(places, owners)), kills=TWO_DROP_OUTS)
    assert caught.value.blamed == (BAD,)


def test_shares_that_come_too_early_do_not_come_twice() -> None:
    """Those of a pool, sent along with those of the counts, would be its holder's second ones at
    the next opening.
    """

    def early(body: bytes) -> bytes:
        message = Revealed.decode(body)
        return replace(
            message,
            shares=(
                *message.shares,
                *((1, owner, share) for place, owner, share in message.shares if place == 0),
            ),
        ).encode()

    outcome = whole_round(Meddling(Phase.OPEN_COUNTS, early))
    assert [(refusal.sender, refusal.phase, refusal.reason) for refusal in outcome.refusals] == [
        (BAD, "open_counts", "malformed")
    ]


@pytest.mark.parametrize("readers", [(0, 1), (3, 6)])
def test_boxes_closed_to_a_few_name_their_dealer_where_the_others_are_too_few(
    readers: tuple[int, ...],
) -> None:
    """Two closed boxes and one that drops out after its upload: eight answer, six with shares of
    that dealer's.
    """

    def edit(body: bytes) -> bytes:
        dealt = Boxes.decode(body).boxes
        return Boxes(
            (),
            tuple((reader, bytes(len(box)) if reader in readers else box) for reader, box in dealt),
        ).encode()

    tape = Meddling(Phase.SHARE, edit)
    assert len(whole_round(tape).survivors) == CLIENTS
    with pytest.raises(RoundRefusedError, match="too-few") as caught:
        whole_round(tape, kills={"client-0008": Phase.AGREE})
    assert caught.value.blamed == (BAD,)


def test_who_complains_of_several_is_named_where_the_others_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = KeyBook.open_box

    def open_box(
        self: KeyBook, key: bytes, dealer: int, reader: int, box: bytes
    ) -> list[bytes] | None:
        return (
            None
            if self.names[reader] == BAD and dealer in (0, 1)
            else honest(self, key, dealer, reader, box)
        )

    monkeypatch.setattr(KeyBook, "open_box", open_box)
    assert len(whole_round().survivors) == CLIENTS
    with pytest.raises(RoundRefusedError, match="too-few") as caught:
        whole_round(kills={"client-0007": Phase.AGREE, "client-0008": Phase.AGREE})
    assert caught.value.blamed == (BAD,)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("secret", [b"5", b"seed", bytes(31)])
def test_a_secret_of_another_length_names_its_dealer(
    place: int, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Well shared, and of no use: a mask key (where its owner drops out), a seed of block 0 that
    was committed to, a pool's seed.
    """
    deals(monkeypatch, {BAD: place}, secret)
    with pytest.raises(RoundRefusedError, match="false-shares") as caught:
        whole_round(kills={BAD: Phase.UPLOAD} if place == 0 else {})
    assert caught.value.blamed == (BAD,)


def test_all_who_dealt_falsely_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a few together would outlast the attempts of a round, each of which leaves out one."""
    deals(monkeypatch, {"client-0001": 1, "client-0003": 1, BAD: 0}, bytes(32))
    with pytest.raises(RoundRefusedError, match="not-proved") as caught:
        whole_round(kills={BAD: Phase.UPLOAD})
    assert caught.value.blamed == ("client-0001", "client-0003", BAD)


def deals(monkeypatch: pytest.MonkeyPatch, dealers: dict[str, int], secret: bytes) -> None:
    """Some clients share another secret in place of one of theirs, to which they commit where it
    has another length.
    """
    honest_share, honest_split, honest_keys = (
        client.RoundClient._share,
        shamir.split,
        client.RoundClient._public,
    )
    turn: list[int] = []

    def split(own: bytes, *arguments: object, **rest: object) -> list[Share]:
        turn[0] -= 1
        return honest_split(secret if turn[0] == -1 else own, *arguments, **rest)  # type: ignore[arg-type]

    def share(self: client.RoundClient, data: bytes) -> bytes:
        turn[:] = [dealers.get(self.name, 100)]
        return honest_share(self, data)

    def public(self: client.RoundClient) -> Advertise:
        keys = honest_keys(self)
        committed = dealers.get(self.name) == 1 and len(secret) != 32
        return (
            replace(keys, commitment=setup.seed_commitment(self._plan, self.name, secret))
            if committed
            else keys
        )

    monkeypatch.setattr(setup, "split_many", each_alone(split))
    monkeypatch.setattr(client.RoundClient, "_share", share)
    monkeypatch.setattr(client.RoundClient, "_public", public)
