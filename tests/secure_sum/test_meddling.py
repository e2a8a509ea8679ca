"""What honest clients and key holders refuse from a server, an authority or another client that
follows another protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from secure_sum.round_helpers import (
    MASKED,
    SHAPE,
    Tape,
    check_exact,
    each_alone,
    flip,
    make_federation,
    make_vectors,
    read_end,
)

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.crypto import shares as shamir
from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum import opener as holders
from secure_fl.secure_sum import server as round_server
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.key_directory import need
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Agreement,
    Boxes,
    OpenRequest,
    Revealed,
    RoundReason,
    RoundRefusedError,
    Survivors,
)

# What clients refuse


class Meddler(Tape):
    """A server that changes one kind of its messages, with its own good signature."""

    def __init__(self, phase: Phase, edit: Callable[[bytes], bytes], chunk: int = 0) -> None:
        super().__init__()
        self.phase, self.edit, self.chunk, self.federation = phase, edit, chunk, None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        if sender != "server" or self.federation is None:
            return data
        header = read_header(data)
        if header.phase != self.phase or header.chunk != self.chunk:
            return data
        body = self.edit(data[read_end(data) :])
        return sign_envelope(
            self.federation._server, replace(header, body_length=0, body_hash=bytes(32)), body
        )


def meddled(
    phase: Phase,
    edit: Callable[[bytes], bytes],
    *,
    protection: str = "masked",
    key_holder: str = "clients",
    chunk: int = 0,
    **rules: object,
) -> str:
    """The word that the first party refuses with."""
    tape = Meddler(phase, edit, chunk)
    federation = make_federation(protection, key_holder, tape=tape)
    tape.federation = federation
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 2], strict=True)))
    with pytest.raises((RefusedError, RoundRefusedError)) as caught:
        federation.round(0, vectors, SHAPE, kills={names[4]: Phase.UPLOAD}, appliers=None, **rules)
    return str(caught.value.reason)


def edit_request(**change: object) -> Callable[[bytes], bytes]:
    return lambda body: replace(OpenRequest.decode(body), **change).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.OPEN_COUNTS, Phase.OPEN_POOLS])
@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_a_switched_survivor_set_is_refused_at_both_openings(
    protection: str, key_holder: str, phase: Phase
) -> None:
    switched = edit_request(survivors=(0, 1, 2), dropped=(3, 4))
    assert (
        meddled(phase, switched, protection=protection, key_holder=key_holder)
        == RoundReason.SURVIVORS_SWITCHED
    )
    assert (
        meddled(phase, edit_request(view=bytes(32)), protection=protection, key_holder=key_holder)
        == RoundReason.SURVIVORS_SWITCHED
    )


@pytest.mark.parametrize("phase", [Phase.OPEN_COUNTS, Phase.OPEN_POOLS])
def test_both_kinds_of_shares_of_one_client_are_refused(phase: Phase) -> None:
    assert meddled(phase, edit_request(dropped=(3, 4))) == RoundReason.BOTH_KINDS
    assert meddled(phase, edit_request(survivors=(0, 1, 2, 3, 4))) == RoundReason.BOTH_KINDS


def test_too_few_signatures_are_refused() -> None:
    def cut(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        return replace(request, evidence=request.evidence[:3]).encode()

    assert meddled(Phase.OPEN_COUNTS, cut) == RoundReason.NOT_AGREED
    assert meddled(Phase.OPEN_COUNTS, edit_request(evidence=())) == RoundReason.NOT_AGREED
    assert (
        meddled(
            Phase.OPEN_COUNTS,
            lambda b: replace(
                OpenRequest.decode(b), evidence=OpenRequest.decode(b).evidence[:1] * 4
            ).encode(),
        )
        == "replayed"
    )


def test_survivor_sets_that_do_not_fit_are_refused() -> None:
    def survivors(*positions: int) -> Callable[[bytes], bytes]:
        return lambda body: Survivors(Survivors.decode(body).view, positions).encode()

    assert meddled(Phase.AGREE, survivors(1, 2, 3)) == RoundReason.SURVIVORS_SWITCHED
    other_view = lambda body: Survivors(bytes(32), Survivors.decode(body).survivors).encode()  # noqa: E731
    assert meddled(Phase.AGREE, other_view) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.AGREE, survivors(0, 1, 2), threshold=3) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.AGREE, survivors(0, 1)) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.AGREE, survivors(0, 1, 2, 3, 9)) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.AGREE, survivors(0, 1, 2, 4)) == RoundReason.SURVIVORS_SWITCHED


def test_keys_and_dealers_that_do_not_fit_are_refused() -> None:
    assert (
        meddled(Phase.ADVERTISE, lambda body: frames(unframe(body)[1:]))
        == RoundReason.SURVIVORS_SWITCHED
    )
    assert (
        meddled(Phase.ADVERTISE, lambda body: frames([*unframe(body)[:-1], unframe(body)[0]]))
        == "replayed"
    )
    assert (
        meddled(Phase.ADVERTISE, lambda body: frames([*unframe(body), unframe(body)[0]]))
        == "wrong-length"
    )
    assert meddled(
        Phase.ADVERTISE, lambda body: frames([flip(unframe(body)[0], 300), *unframe(body)[1:]])
    ) in ("wrong-signature", "bit-flipped")
    assert meddled(Phase.ADVERTISE, lambda body: frames(unframe(body)[:1])) == RoundReason.TOO_FEW

    def fewer(body: bytes) -> bytes:
        boxes = Boxes.decode(body)
        return Boxes(boxes.dealers, boxes.boxes[1:]).encode()

    assert meddled(Phase.SHARE, fewer) == RoundReason.SURVIVORS_SWITCHED
    assert (
        meddled(Phase.SHARE, lambda body: Boxes((0, 1), Boxes.decode(body).boxes[:1]).encode())
        == RoundReason.TOO_FEW
    )


@pytest.mark.parametrize(
    ("protection", "key_holder"), [pair for pair in MASKED if pair[0] != "masked"]
)
def test_pools_below_the_minimum_are_not_opened(protection: str, key_holder: str) -> None:
    """The server sends one block more to be decrypted."""
    phase = Phase.OPEN_POOLS if key_holder == "authority" else Phase.APPLY

    def more(body: bytes) -> bytes:
        if phase == Phase.APPLY:
            return frames([*unframe(body), unframe(body)[-1]])
        request = OpenRequest.decode(body)
        if read_is_envelope(request.evidence[0]):
            return body
        return replace(request, evidence=(*request.evidence, request.evidence[-1])).encode()

    assert (
        meddled(phase, more, protection=protection, key_holder=key_holder)
        == RoundReason.BELOW_MINIMUM
    )


def read_is_envelope(data: bytes) -> bool:
    return data[:4] == b"SFE1"


def test_counts_that_the_authority_did_not_sign_are_refused() -> None:
    def forge(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        evidence = request.evidence[0]
        return (
            replace(request, evidence=(flip(evidence, len(evidence) - 1),)).encode()
            if read_is_envelope(evidence)
            else body
        )

    assert (
        meddled(Phase.OPEN_POOLS, forge, protection="bfv+masked", key_holder="authority")
        == Reason.BIT_FLIPPED
    )


def test_an_authority_wants_signatures_and_one_set() -> None:
    def unsigned(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        return (
            body
            if read_is_envelope(request.evidence[0])
            else replace(request, evidence=request.evidence[:1]).encode()
        )

    assert (
        meddled(Phase.OPEN_COUNTS, unsigned, protection="bfv+masked", key_holder="authority")
        == RoundReason.NOT_AGREED
    )

    def switched(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        return (
            body
            if read_is_envelope(request.evidence[0])
            else replace(request, view=bytes(32)).encode()
        )

    assert (
        meddled(Phase.OPEN_POOLS, switched, protection="bfv+masked", key_holder="authority")
        == RoundReason.SURVIVORS_SWITCHED
    )


def test_a_sum_with_its_masks_left_in_is_refused_by_every_holder() -> None:
    """The server hands on a pool's sum without subtracting: the holder sees the guard, and says
    nothing else.
    """
    for key_holder in ("clients", "authority"):
        federation = make_federation("bfv+masked", key_holder)
        names = list(federation.clients)
        running = federation.begin(0, SHAPE)
        for name, vector in make_vectors(SHAPE, dict.fromkeys(names, 0)).items():
            running.add(running.protect(name, vector))
        adder = running.server._adder
        finish = adder.finish
        adder.finish = lambda block, masks=None, finish=finish: finish(block, None)  # type: ignore[method-assign, misc]
        with pytest.raises(RoundRefusedError, match="still-masked"):
            running.open()


class Dealer(Tape):
    """A client whose shares are not what they were."""

    def __init__(
        self,
        edit: Callable[[tuple[int, int, bytes]], tuple[int, int, bytes]],
        phases: tuple[Phase, ...],
    ) -> None:
        super().__init__()
        self.edit, self.phases = edit, phases
        self.federation: EmbeddedFederation | None = None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        if (
            self.federation is None
            or sender != "client-0001"
            or data[:4] != b"SFE1"
            or read_header(data).phase not in self.phases
        ):
            return data
        header, message = read_header(data), Revealed.decode(data[read_end(data) :])
        forged = replace(
            message, shares=tuple(self.edit(entry) for entry in message.shares)
        ).encode()
        return sign_envelope(
            self.federation.clients[sender],
            replace(header, body_length=0, body_hash=bytes(32)),
            forged,
        )


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: (e[0], e[1], flip(e[2], 70)), "false-shares"),
        (lambda e: (e[0], e[1], flip(e[2], 4)), "malformed"),
        (lambda e: (e[0], e[1], flip(e[2], 2)), "malformed"),
        (lambda e: (e[0], e[1], flip(e[2], 0)), "malformed"),
        (lambda e: (0, e[1], e[2]) if e[0] == MASK_KEY else e, "malformed"),
        (lambda e: (e[0], 77, e[2]) if e[1] == 4 else e, "malformed"),
        (lambda e: (MASK_KEY, e[1], e[2]) if e[1] == 2 and e[0] == 0 else e, "malformed"),
        (lambda e: (1, e[1], e[2]) if e[0] == 0 else e, "malformed"),
    ],
)
def test_false_shares_of_one_client_cost_nothing(
    edit: Callable[[tuple[int, int, bytes]], tuple[int, int, bytes]], reason: str
) -> None:
    tape = Dealer(edit, (Phase.OPEN_COUNTS,))
    federation = make_federation(tape=tape)
    tape.federation = federation
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    outcome = federation.round(0, vectors, SHAPE, kills={names[4]: Phase.UPLOAD}, threshold=3)
    check_exact(outcome, SHAPE, vectors, names[:4], 2)
    assert [refusal.reason for refusal in outcome.refusals] == [reason]


def test_a_client_that_deals_a_false_mask_key_ends_the_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = shamir.split
    dealt = []

    def false(secret: bytes, *arguments: object, **rest: object) -> object:
        dealt.append(secret)
        return honest(bytes(32) if len(dealt) == 1 else secret, *arguments, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(setup, "split_many", each_alone(false))
    federation = make_federation()
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    with pytest.raises(RoundRefusedError, match="not-proved") as caught:
        federation.round(0, vectors, SHAPE, kills={"client-0000": Phase.UPLOAD})
    assert caught.value.blamed == ("client-0000",)


def test_a_survivor_that_signed_another_set_is_noticed() -> None:
    def another(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        header = read_header(request.evidence[1])
        signed = sign_envelope(
            made[0].clients[header.sender],
            replace(header, body_length=0, body_hash=bytes(32)),
            Agreement(bytes(32), 4).encode(),
        )
        return replace(
            request, evidence=(request.evidence[0], signed, *request.evidence[2:])
        ).encode()

    made: list[EmbeddedFederation] = []
    tape = Meddler(Phase.OPEN_COUNTS, another)
    made.append(make_federation(tape=tape))
    tape.federation = made[0]
    names = list(made[0].clients)
    with pytest.raises(RoundRefusedError, match="signed another set"):
        made[0].round(
            0,
            make_vectors(SHAPE, dict.fromkeys(names, 0)),
            SHAPE,
            kills={names[4]: Phase.UPLOAD},
            threshold=3,
        )


@pytest.mark.parametrize(
    ("phase", "what", "rules"),
    [
        (Phase.SHARE, "dealers", {"threshold": 3, "fewest": 4}),
        (Phase.UPLOAD, "survivors", {"threshold": 3, "fewest": 4}),
        (Phase.SHARE, "neighbours", {"threshold": 3, "degree": 2, "colluders": 0, "fewest": 3}),
    ],
)
def test_clients_themselves_refuse_too_few(
    phase: Phase, what: str, rules: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server and opener go on while anybody is left; honest clients do not."""
    for careless in (round_server, holders):
        monkeypatch.setattr(careless, "need", lambda found, least, *rest: need(found, 1, *rest))
    federation = make_federation()
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    with pytest.raises(RoundRefusedError, match="too-few") as caught:
        federation.round(0, vectors, SHAPE, kills=dict.fromkeys(names[:2], phase), **rules)  # type: ignore[arg-type]
    assert caught.value.field == what


def test_a_neighbourhood_that_lost_too_many_ends_the_round() -> None:
    federation = make_federation(clients=9)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    running = federation.begin(0, SHAPE, degree=2, colluders=0, fewest=3)
    neighbours = running.server._book.neighbours(0)
    for name in names:
        if names.index(name) not in neighbours:
            running.add(running.protect(name, vectors[name]))
    with pytest.raises(RoundRefusedError, match="cannot be opened"):
        running.open()
