"""Every message that is not what it must be is refused with a word, recorded, and leaves the sum as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.round_helpers import MASKED, SHAPE, Tape, check_exact, make_federation, make_vectors, shared_federation

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum import key_holder as holders
from secure_fl.secure_sum import round_client, round_server
from secure_fl.secure_sum.envelope import Phase, open_envelope, read_header, sign_envelope
from secure_fl.secure_sum.identities import Identity
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook
from secure_fl.secure_sum.round_client import RoundClient
from secure_fl.secure_sum.round_layers import protect
from secure_fl.secure_sum.round_messages import (
    MASK_KEY,
    Advertise,
    Agreement,
    Boxes,
    Counts,
    OpenRequest,
    Revealed,
    RoundReason,
    RoundRefusedError,
    Survivors,
    frames,
    unframe,
)
from secure_fl.secure_sum.round_plan import BlockVector, RoundPlan
from secure_fl.secure_sum.round_server import RoundServer
from secure_fl.secure_sum.round_steps import claimed
from secure_fl.secure_sum.round_store import FolderStore, MemoryStore
from secure_fl.secure_sum.secure_sum import EmbeddedFederation, EmbeddedRound


@dataclass
class Scene:
    """A round at its uploads: the first client's is ready, the others' are in."""

    federation: EmbeddedFederation
    running: EmbeddedRound
    vectors: dict[str, BlockVector]
    upload: bytes
    earlier: bytes

    @property
    def plan(self) -> RoundPlan:
        return self.running.plan

    @property
    def me(self) -> Identity:
        return self.federation.clients[next(iter(self.vectors))]

    def changed(self, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
        return frames(change(unframe(self.upload)))

    def forged(self, *, identity: Identity | None = None, body: Callable[[bytes], bytes] = bytes, block: int = 2, **header: object) -> bytes:
        """One block's envelope made anew."""
        envelopes, who = unframe(self.upload), identity or self.me
        inner = envelopes[block][read_end(envelopes[block]) :]
        plan_header = replace(self.plan.header(Phase.UPLOAD, who.name, chunk=block, chunks=len(envelopes)), **header)  # type: ignore[arg-type]
        envelopes[block] = sign_envelope(who, plan_header, body(inner))
        return frames(envelopes)


def read_end(envelope: bytes) -> int:
    return len(envelope) - read_header(envelope).body_length


def make_scene(protection: str, key_holder: str) -> Scene:
    rounds = shared_federation(protection, key_holder)
    federation, names = rounds.federation, list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    first = federation.begin(rounds.next(), SHAPE)
    earlier = first.protect(names[0], vectors[names[0]])
    running = federation.begin(rounds.next(), SHAPE)
    for name in names[1:]:
        assert running.add(running.protect(name, vectors[name])) is None
    return Scene(federation, running, vectors, running.protect(names[0], vectors[names[0]]), earlier)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


REFUSED: list[tuple[str, Reason, Callable[[Scene], bytes]]] = [
    ("stale", Reason.STALE, lambda s: s.earlier),
    ("truncated", Reason.TRUNCATED, lambda s: s.upload[:-1]),
    ("truncated within", Reason.TRUNCATED, lambda s: s.changed(lambda e: [*e[:-1], e[-1][:-1]])),
    ("nothing", Reason.TRUNCATED, lambda s: b""),
    ("bytes after it", Reason.MALFORMED, lambda s: s.upload + b"x"),
    ("wrong length", Reason.WRONG_LENGTH, lambda s: s.changed(lambda e: [*e[:-1], e[-1] + b"x"])),
    ("bit flipped", Reason.BIT_FLIPPED, lambda s: flip(s.upload, len(s.upload) - 9)),
    ("header flipped", Reason.WRONG_SIGNATURE, lambda s: flip(s.upload, 12 + 50)),
    ("another's signature", Reason.WRONG_SIGNATURE, lambda s: s.forged(identity=Identity.generate(s.me.name))),
    ("stranger", Reason.UNKNOWN_CLIENT, lambda s: s.forged(identity=Identity.generate("stranger"), block=0)),
    ("re-keyed", Reason.RE_KEYED, lambda s: s.forged(key_fingerprint=os.urandom(32))),
    ("another plan", Reason.WRONG_PARAMETERS, lambda s: s.forged(parameters="bfv-2048/1")),
    ("another suite", Reason.WRONG_SUITE, lambda s: s.forged(suite="clear")),
    ("another federation", Reason.WRONG_FEDERATION, lambda s: s.forged(federation="banks")),
    ("another roster", Reason.WRONG_ROSTER, lambda s: s.forged(roster_digest=bytes(32))),
    ("another K", Reason.WRONG_POOLS, lambda s: s.forged(pools=4)),
    ("future", Reason.FUTURE, lambda s: s.forged(round=s.plan.round + 1)),
    ("a block is missing", Reason.WRONG_CHUNK, lambda s: s.changed(lambda e: e[:-1])),
    ("blocks in another order", Reason.WRONG_CHUNK, lambda s: s.changed(lambda e: [*e[:2], e[3], e[2], *e[4:]])),
    ("two senders", Reason.WRONG_ROLE, lambda s: s.forged(identity=list(s.federation.clients.values())[1])),
    ("another message", Reason.WRONG_PHASE, lambda s: sign_envelope(s.me, s.plan.header(Phase.AGREE, s.me.name), bytes(34))),
    ("not a message", Reason.TRUNCATED, lambda s: os.urandom(200)),
]


@pytest.mark.parametrize(("protection", "key_holder"), [("masked", "clients"), ("bfv+masked", "clients"), ("bfv", "authority")])
def test_refused_uploads_are_recorded_and_not_added(protection: str, key_holder: str) -> None:
    scene = make_scene(protection, key_holder)
    for what, reason, make in REFUSED:
        found = scene.running.add(make(scene))
        assert found == reason or (what == "not a message" and found in (Reason.TRUNCATED, Reason.MALFORMED)), what
    assert len(scene.running.server.refusals) == len(REFUSED)
    assert {refusal.sender for refusal in scene.running.server.refusals} <= {"?", "stranger", *scene.vectors}
    # after all that the true bytes are still welcome, once
    assert scene.running.add(scene.upload) is None
    assert scene.running.add(scene.upload) == Reason.REPLAYED
    assert scene.running.add(scene.forged(body=lambda body: body, block=1)) == Reason.REPLAYED
    other = frames([sign_envelope(scene.me, scene.plan.header(Phase.UPLOAD, scene.me.name, chunk=b, chunks=5), bytes(9)) for b in range(5)])
    assert scene.running.add(other) == Reason.DUPLICATE
    outcome = scene.running.open()
    check_exact(outcome, SHAPE, scene.vectors, list(scene.vectors), 2)
    assert outcome.refusals[0].reason == "stale"
    assert scene.running.add(scene.upload) == Reason.STALE


def test_late_uploads_are_discarded() -> None:
    for protection, key_holder in MASKED:
        scene = make_scene(protection, key_holder)
        server, names = scene.running.server, list(scene.vectors)
        messages = server.advance()
        assert scene.running.add(scene.upload) == Reason.STALE
        scene.running._deliver(messages)
        check_exact(scene.running.open(), SHAPE, scene.vectors, names[1:], 2)


@pytest.mark.parametrize(("protection", "key_holder"), [("plain", "clients"), ("bfv", "clients"), ("masked", "clients")])
def test_damaged_bodies_with_good_signatures(protection: str, key_holder: str) -> None:
    scene = make_scene(protection, key_holder)
    assert scene.running.add(scene.forged(body=lambda body: body[:-8])) in (Reason.TRUNCATED, Reason.WRONG_LENGTH)
    assert scene.running.add(scene.forged(body=lambda body: body + bytes(8))) == Reason.WRONG_LENGTH
    if protection != "masked":
        head = 73 + 64 if protection == "bfv" else 0
        assert scene.running.add(scene.forged(body=lambda body: body[:head] + b"\xff" * (len(body) - head))) == Reason.OUT_OF_RANGE
    assert scene.running.add(scene.upload) is None
    check_exact(scene.running.open(), SHAPE, scene.vectors, list(scene.vectors), 2)


def test_a_ciphertext_of_another_client_is_a_replay() -> None:
    scene = make_scene("bfv", "clients")
    names, running = list(scene.vectors), scene.running
    cipher = running.clients[names[0]]._cipher
    body = protect(scene.plan, cipher, 0, scene.vectors[names[0]].head)
    copied = scene.forged(body=lambda _: protect(scene.plan, cipher, 2, np.zeros(11, np.int64)))
    assert running.add(copied) is None
    again = shared_federation("bfv", "clients").federation.begin(shared_federation("bfv", "clients").next(), SHAPE)
    first, second = (
        frames(
            [
                sign_envelope(
                    again.clients[name]._identity,
                    again.plan.header(Phase.UPLOAD, name, chunk=block, chunks=5),
                    body if block == 0 else protect(again.plan, cipher, block, scene.vectors[name].block(SHAPE, block)),
                )
                for block in range(5)
            ]
        )
        for name in names[:2]
    )
    assert again.add(first) is None
    assert again.add(second) == Reason.REPLAYED


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
        return sign_envelope(self.federation._server, replace(header, body_length=0, body_hash=bytes(32)), body)


def meddled(
    phase: Phase, edit: Callable[[bytes], bytes], *, protection: str = "masked", key_holder: str = "clients", chunk: int = 0, **rules: object
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
def test_a_switched_survivor_set_is_refused_at_both_openings(protection: str, key_holder: str, phase: Phase) -> None:
    switched = edit_request(survivors=(0, 1, 2), dropped=(3, 4))
    assert meddled(phase, switched, protection=protection, key_holder=key_holder) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(phase, edit_request(view=bytes(32)), protection=protection, key_holder=key_holder) == RoundReason.SURVIVORS_SWITCHED


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
        meddled(Phase.OPEN_COUNTS, lambda b: replace(OpenRequest.decode(b), evidence=OpenRequest.decode(b).evidence[:1] * 4).encode()) == "replayed"
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
    assert meddled(Phase.ADVERTISE, lambda body: frames(unframe(body)[1:])) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.ADVERTISE, lambda body: frames([*unframe(body), unframe(body)[0]])) == "replayed"
    assert meddled(Phase.ADVERTISE, lambda body: frames([flip(unframe(body)[0], 300), *unframe(body)[1:]])) in ("wrong-signature", "bit-flipped")
    assert meddled(Phase.ADVERTISE, lambda body: frames(unframe(body)[:1])) == RoundReason.TOO_FEW

    def fewer(body: bytes) -> bytes:
        boxes = Boxes.decode(body)
        return Boxes(boxes.dealers, boxes.boxes[1:]).encode()

    assert meddled(Phase.SHARE, fewer) == RoundReason.SURVIVORS_SWITCHED
    assert meddled(Phase.SHARE, lambda body: Boxes((0, 1), Boxes.decode(body).boxes[:1]).encode()) == RoundReason.TOO_FEW


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_pools_below_the_minimum_are_not_opened(protection: str, key_holder: str) -> None:
    """The server claims another opening of the counts, or sends one block more to be decrypted."""
    if protection == "masked":

        def claim(body: bytes) -> bytes:
            request = OpenRequest.decode(body)
            header = read_header(request.evidence[0])
            counts = Counts.decode(request.evidence[0][read_end(request.evidence[0]) :])
            forged = replace(counts, passing=(0, 1, 2)).encode()
            return replace(request, evidence=(sign_envelope(holder[0], replace(header, body_length=0, body_hash=bytes(32)), forged),)).encode()

        holder: list[Identity] = []
        tape = Meddler(Phase.OPEN_POOLS, claim)
        federation = make_federation(tape=tape)
        tape.federation = federation
        holder.append(federation._server)
        names = list(federation.clients)
        with pytest.raises(RoundRefusedError, match="below-minimum"):
            federation.round(0, make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 2], strict=True))), SHAPE)
        return
    phase = Phase.OPEN_POOLS if key_holder == "authority" else Phase.APPLY

    def more(body: bytes) -> bytes:
        if phase == Phase.APPLY:
            return frames([*unframe(body), unframe(body)[-1]])
        request = OpenRequest.decode(body)
        if read_is_envelope(request.evidence[0]):
            return body
        return replace(request, evidence=(*request.evidence, request.evidence[-1])).encode()

    assert meddled(phase, more, protection=protection, key_holder=key_holder) == RoundReason.BELOW_MINIMUM


def read_is_envelope(data: bytes) -> bool:
    return data[:4] == b"SFE1"


def test_counts_that_the_authority_did_not_sign_are_refused() -> None:
    def forge(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        evidence = request.evidence[0]
        return replace(request, evidence=(flip(evidence, len(evidence) - 1),)).encode() if read_is_envelope(evidence) else body

    assert meddled(Phase.OPEN_POOLS, forge, protection="bfv+masked", key_holder="authority") == Reason.BIT_FLIPPED


def test_an_authority_wants_signatures_and_one_set() -> None:
    def unsigned(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        return body if read_is_envelope(request.evidence[0]) else replace(request, evidence=request.evidence[:1]).encode()

    assert meddled(Phase.OPEN_COUNTS, unsigned, protection="bfv+masked", key_holder="authority") == RoundReason.NOT_AGREED

    def switched(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        return body if read_is_envelope(request.evidence[0]) else replace(request, view=bytes(32)).encode()

    assert meddled(Phase.OPEN_POOLS, switched, protection="bfv+masked", key_holder="authority") == RoundReason.SURVIVORS_SWITCHED


def test_a_sum_with_its_masks_left_in_is_refused_by_every_holder() -> None:
    """The server sends the sum of heads without subtracting: the holder sees the guard, and says nothing else."""
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


def test_clients_that_opened_other_sums_are_found() -> None:
    tape_digest = os.urandom(32)

    class Liar(Tape):
        federation: EmbeddedFederation | None = None

        def change(self, sender: str, recipient: str, data: bytes) -> bytes:
            if self.federation and sender == "client-0001" and claimed(data)[1] == "apply":
                header = replace(read_header(data), body_length=0, body_hash=bytes(32))
                return sign_envelope(self.federation.clients[sender], header, tape_digest)
            return data

    tape = Liar()
    federation = make_federation("bfv", "clients", tape=tape)
    tape.federation = federation
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    with pytest.raises(RoundRefusedError, match="clients opened different sums"):
        federation.round(0, vectors, SHAPE, appliers=None)
    # and by clients themselves, where the server hides it
    honest = make_federation("bfv", "clients")
    running = honest.begin(0, SHAPE, appliers=None)
    for name in honest.clients:
        running.add(running.protect(name, vectors[name]))
    running.open()
    name = next(iter(honest.clients))
    fake = sign_envelope(honest.clients["client-0001"], running.plan.header(Phase.APPLY, "client-0001"), tape_digest)
    running.clients[name]._seen.digests.clear()
    message = sign_envelope(honest._server, running.plan.header(Phase.APPLY, "server", chunk=1, chunks=2), frames([fake]))
    with pytest.raises(RoundRefusedError, match="forked"):
        running.clients[name].confirm(message)


class Dealer(Tape):
    """A client whose shares are not what they were."""

    def __init__(self, edit: Callable[[tuple[int, int, bytes]], tuple[int, int, bytes]], phases: tuple[Phase, ...]) -> None:
        super().__init__()
        self.edit, self.phases = edit, phases
        self.federation: EmbeddedFederation | None = None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        if self.federation is None or sender != "client-0001" or data[:4] != b"SFE1" or read_header(data).phase not in self.phases:
            return data
        header, message = read_header(data), Revealed.decode(data[read_end(data) :])
        forged = replace(message, shares=tuple(self.edit(entry) for entry in message.shares)).encode()
        return sign_envelope(self.federation.clients[sender], replace(header, body_length=0, body_hash=bytes(32)), forged)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: (e[0], e[1], flip(e[2], 70)), None),
        (lambda e: (e[0], e[1], flip(e[2], 4)), "malformed"),
        (lambda e: (e[0], e[1], flip(e[2], 2)), "malformed"),
        (lambda e: (e[0], e[1], flip(e[2], 0)), "malformed"),
        (lambda e: (0, e[1], e[2]) if e[0] == MASK_KEY else e, "malformed"),
        (lambda e: (e[0], 77, e[2]) if e[1] == 4 else e, "malformed"),
        (lambda e: (MASK_KEY, e[1], e[2]) if e[1] == 2 and e[0] == 0 else e, "malformed"),
    ],
)
def test_false_shares_of_one_client_cost_nothing(edit: Callable[[tuple[int, int, bytes]], tuple[int, int, bytes]], reason: str | None) -> None:
    tape = Dealer(edit, (Phase.OPEN_COUNTS,))
    federation = make_federation(tape=tape)
    tape.federation = federation
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    outcome = federation.round(0, vectors, SHAPE, kills={names[4]: Phase.UPLOAD}, threshold=3)
    check_exact(outcome, SHAPE, vectors, names[:4], 2)
    assert [refusal.reason for refusal in outcome.refusals] == ([reason] if reason else [])


def test_a_client_that_deals_a_false_mask_key_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = round_client.split
    dealt = []

    def false(secret: bytes, *arguments: object, **rest: object) -> object:
        dealt.append(secret)
        return honest(bytes(32) if len(dealt) == 1 else secret, *arguments, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(round_client, "split", false)
    federation = make_federation()
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    with pytest.raises(RefusedError, match="not the key that was advertised"):
        federation.round(0, vectors, SHAPE, kills={"client-0000": Phase.UPLOAD})


def test_uploads_of_clients_that_dealt_no_shares_are_refused() -> None:
    federation = make_federation(clients=5)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    running = federation.begin(0, SHAPE, kills={names[0]: Phase.SHARE})
    for name in names[1:]:
        assert running.add(running.protect(name, vectors[name])) is None
    bodies = [np.zeros(running.plan.numbers(block), "<u8").tobytes() for block in range(5)]
    headers = [running.plan.header(Phase.UPLOAD, names[0], chunk=block, chunks=5) for block in range(5)]
    upload = frames([sign_envelope(federation.clients[names[0]], header, body) for header, body in zip(headers, bodies, strict=True)])
    assert running.add(upload) == Reason.UNKNOWN_CLIENT
    check_exact(running.open(), SHAPE, vectors, names[1:], 2)


def test_clients_outside_the_cohort_are_refused() -> None:
    federation = make_federation("bfv", clients=5)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    running = federation.begin(0, SHAPE, cohort=names[:4])
    other = RoundClient(running.plan, federation.clients[names[4]], cipher=running.clients[names[0]]._cipher)
    assert running.add(other.upload(vectors[names[4]])) == Reason.UNKNOWN_CLIENT
    for name in names[:4]:
        assert running.add(running.protect(name, vectors[name])) is None
    check_exact(running.open(), SHAPE, vectors, names[:4], 2)


def test_keys_from_outside_the_cohort_are_refused() -> None:
    federation = make_federation(clients=5)
    names = list(federation.clients)
    plan = federation.begin(0, SHAPE, cohort=names[:4]).plan
    server = RoundServer(plan, federation._server)
    keys = [RoundClient(plan, federation.clients[name]).advertise() for name in names]
    assert [server.receive(data) for data in keys] == [None] * 4 + [Reason.UNKNOWN_CLIENT]
    with pytest.raises(RefusedError, match="unknown-client"):
        KeyBook.read(plan, keys)
    assert KeyBook.read(plan, keys[:4]).names == tuple(names[:4])


def test_two_clients_with_one_key_are_refused() -> None:
    federation = make_federation(clients=3)
    plan = federation.begin(0, SHAPE).plan
    names = list(federation.clients)
    shared = os.urandom(32)
    keys = {name: Advertise(shared if number < 2 else os.urandom(32), os.urandom(32)) for number, name in enumerate(names)}
    with pytest.raises(RefusedError, match="share a key"):
        KeyBook.of(plan, keys)


def test_a_survivor_that_signed_another_set_is_noticed() -> None:
    def another(body: bytes) -> bytes:
        request = OpenRequest.decode(body)
        header = read_header(request.evidence[1])
        signed = sign_envelope(made[0].clients[header.sender], replace(header, body_length=0, body_hash=bytes(32)), Agreement(bytes(32), 4).encode())
        return replace(request, evidence=(request.evidence[0], signed, *request.evidence[2:])).encode()

    made: list[EmbeddedFederation] = []
    tape = Meddler(Phase.OPEN_COUNTS, another)
    made.append(make_federation(tape=tape))
    tape.federation = made[0]
    names = list(made[0].clients)
    with pytest.raises(RoundRefusedError, match="signed another set"):
        made[0].round(0, make_vectors(SHAPE, dict.fromkeys(names, 0)), SHAPE, kills={names[4]: Phase.UPLOAD}, threshold=3)


@pytest.mark.parametrize(
    ("phase", "what", "rules"),
    [
        (Phase.SHARE, "dealers", {"threshold": 3, "fewest": 4}),
        (Phase.UPLOAD, "survivors", {"threshold": 3, "fewest": 4}),
        (Phase.SHARE, "neighbours", {"threshold": 3, "degree": 2}),
    ],
)
def test_clients_themselves_refuse_too_few(phase: Phase, what: str, rules: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and opener go on whatever is missing; honest clients do not."""
    for careless in (round_server, holders):
        monkeypatch.setattr(careless, "need", lambda *arguments: None)
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
    running = federation.begin(0, SHAPE, degree=2)
    neighbours = running.server._book.neighbours(0)
    for name in names:
        if names.index(name) not in neighbours:
            running.add(running.protect(name, vectors[name]))
    with pytest.raises(RoundRefusedError, match="cannot be opened"):
        running.open()


# One vector a round


def test_no_second_vector_for_a_round_and_the_same_bytes_after_a_resume(tmp_path: Path) -> None:
    federation = make_federation("bfv", "clients")
    running = federation.begin(3, SHAPE)
    name, vector = "client-0000", make_vectors(SHAPE, {"client-0000": 1})["client-0000"]
    cipher = running.clients[name]._cipher
    store = FolderStore(tmp_path / "store")
    client = RoundClient(running.plan, federation.clients[name], cipher=cipher, store=store)
    sent = client.upload(vector)
    with pytest.raises(RoundRefusedError, match="already-begun"):
        client.upload(vector)
    resumed = RoundClient(running.plan, federation.clients[name], cipher=cipher, store=FolderStore(tmp_path / "store"))
    assert resumed.resend() == sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        resumed.upload(vector)
    assert running.add(sent) is None
    assert running.add(resumed.resend() or b"") == Reason.REPLAYED
    assert (tmp_path / "store" / "upload").stat().st_mode & 0o077 == 0
    later = RoundClient(federation.begin(4, SHAPE).plan, federation.clients[name], cipher=cipher, store=FolderStore(tmp_path / "store"))
    assert later.resend() is None
    assert later.upload(vector) != sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        RoundClient(running.plan, federation.clients[name], cipher=cipher, store=FolderStore(tmp_path / "store")).upload(vector)


def test_a_client_resumed_before_its_upload_drops_out() -> None:
    federation, store = make_federation(), MemoryStore()
    plan = federation.begin(0, SHAPE).plan
    identity = federation.clients["client-0000"]
    RoundClient(plan, identity, store=store).advertise()
    resumed = RoundClient(plan, identity, store=store)
    assert resumed.resend() is None
    with pytest.raises(RoundRefusedError, match="already-begun"):
        resumed.advertise()
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        resumed.upload(make_vectors(SHAPE, {"client-0000": 0})["client-0000"])


def test_a_kill_between_storing_and_sending_loses_nothing() -> None:
    """The upload is stored; the process dies; the resumed client sends the same bytes, and others open its secrets."""
    federation = make_federation()
    running = federation.begin(0, SHAPE)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 2))
    running.protect(names[0], vectors[names[0]])
    again = RoundClient(running.plan, federation.clients[names[0]], store=federation._stores[names[0]])
    assert running.add(again.resend() or b"") is None
    for name in names[1:]:
        running.add(running.protect(name, vectors[name]))
    running._kills = {names[0]: Phase.AGREE}
    check_exact(running.open(), SHAPE, vectors, names, 2)


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "round").write_text("not a number")
    with pytest.raises(SecureSumError, match="damaged"):
        store.begin(1)


# Whatever the bytes


@settings(max_examples=60)
@given(data=st.data())
def test_the_server_never_raises_on_a_message(data: st.DataObject) -> None:
    scene = SCENE[0] if SCENE else SCENE.append(make_scene("masked", "clients")) or SCENE[0]
    upload = scene.upload
    at, byte = data.draw(st.integers(0, len(upload) - 1)), data.draw(st.integers(1, 255))
    kind = data.draw(st.sampled_from(["flip", "cut", "random"]))
    made = {"flip": upload[:at] + bytes([upload[at] ^ byte]) + upload[at + 1 :], "cut": upload[:at], "random": data.draw(st.binary(max_size=300))}[
        kind
    ]
    assert scene.running.server.receive(made) is not None


SCENE: list[Scene] = []


@settings(max_examples=60)
@given(data=st.data())
def test_clients_and_authority_only_refuse(data: st.DataObject) -> None:
    """Damaged and well-signed nonsense alike: a typed refusal, and no share goes out."""
    scene = SCENE[0] if SCENE else SCENE.append(make_scene("masked", "clients")) or SCENE[0]
    plan, server = scene.plan, scene.federation._server
    client = scene.running.clients[data.draw(st.sampled_from(list(scene.vectors)))]
    calls = {
        Phase.ADVERTISE: client.share,
        Phase.SHARE: client.take_shares,
        Phase.AGREE: client.agree,
        Phase.OPEN_COUNTS: client.open_counts,
        Phase.OPEN_POOLS: client.open_pools,
        Phase.APPLY: client.apply,
    }
    phase = data.draw(st.sampled_from(list(calls)))
    body = data.draw(st.one_of(st.binary(max_size=200), st.just(OpenRequest(bytes(32), (0, 1), (2,), (b"x",)).encode()), st.just(frames([b"x"]))))
    signed = sign_envelope(server, plan.header(phase, "server", chunks=2 if phase == Phase.APPLY else 1), body)
    at = data.draw(st.integers(0, len(signed) - 1))
    for message in (signed, flip(signed, at), signed[:at], body):
        with pytest.raises(SecureSumError):
            calls[phase](message)


@settings(max_examples=150)
@given(data=st.data())
def test_parsers_take_one_spelling_only(data: st.DataObject) -> None:
    raw = data.draw(st.binary(max_size=120))
    good: list[bytes] = [
        Advertise(bytes(32), bytes([1] * 32)).encode(),
        Boxes((1, 4), ((2, b"ab"), (7, b""))).encode(),
        Survivors(bytes(32), (0, 3)).encode(),
        Agreement(bytes(32), 5).encode(),
        OpenRequest(bytes(32), (1,), (2,), (b"x", b"")).encode(),
        Revealed((0,), ((MASK_KEY, 1, bytes(71)), (0, 2, bytes(71)))).encode(),
        Counts(bytes(32), np.array([-1, 5]), (1,)).encode(),
    ]
    kinds = [Advertise, Boxes, Survivors, Agreement, OpenRequest, Revealed, Counts]
    for kind, bytes_ in zip(kinds, good, strict=True):
        assert kind.decode(bytes_).encode() == bytes_
        for wrong in (bytes_[:-1], bytes_ + b"\0"):
            with pytest.raises(RefusedError):
                kind.decode(wrong)
        at = data.draw(st.integers(0, len(bytes_) - 1))
        for candidate in (raw, flip(bytes_, at)):
            try:
                found = kind.decode(candidate)
            except RefusedError:
                continue
            assert found.encode() == candidate


def test_open_envelope_is_what_receivers_use() -> None:
    scene = make_scene("masked", "clients")
    expected = scene.plan.expect(Phase.UPLOAD, "client", chunks=5)
    header, body = open_envelope(unframe(scene.upload)[0], scene.plan.roster, expected)
    assert (header.chunk, len(body)) == (0, 8 * scene.plan.numbers(0))
