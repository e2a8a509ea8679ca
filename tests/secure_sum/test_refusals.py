"""What a server refuses, recorded with a word and without a trace in the sum; one vector a round;
whatever the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.round_helpers import (
    MASKED,
    SHAPE,
    check_exact,
    flip,
    make_federation,
    make_vectors,
    read_end,
    shared_federation,
)

from secure_fl.crypto.envelope import Phase, open_envelope, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import ClientCipher, body_bytes, protect
from secure_fl.secure_sum.blocks import BlockVector, Integers
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.embedded_round import EmbeddedRound
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.key_directory import KeyBook
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Advertise,
    Agreement,
    Boxes,
    Counts,
    Dealers,
    OpenRequest,
    Revealed,
    RoundRefusedError,
    Survivors,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.store import FolderStore, MemoryStore


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

    def forged(
        self,
        *,
        identity: Identity | None = None,
        body: Callable[[bytes], bytes] = bytes,
        block: int = 2,
        **header: object,
    ) -> bytes:
        """One block's envelope made anew."""
        envelopes, who = unframe(self.upload), identity or self.me
        inner = envelopes[block][read_end(envelopes[block]) :]
        plan_header = replace(
            self.plan.header(Phase.UPLOAD, who.name, chunk=block, chunks=len(envelopes)), **header
        )  # type: ignore[arg-type]
        envelopes[block] = sign_envelope(who, plan_header, body(inner))
        return frames(envelopes)


def make_scene(protection: str, key_holder: str) -> Scene:
    rounds = shared_federation(protection, key_holder)
    federation, names = rounds.federation, list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    first = federation.begin(rounds.next(), SHAPE)
    earlier = first.protect(names[0], vectors[names[0]])
    running = federation.begin(rounds.next(), SHAPE)
    for name in names[1:]:
        assert running.add(running.protect(name, vectors[name])) is None
    return Scene(
        federation,
        running,
        vectors,
        bytes(running.protect(names[0], vectors[names[0]])),
        bytes(earlier),
    )


REFUSED: list[tuple[str, Reason, Callable[[Scene], bytes]]] = [
    ("stale", Reason.STALE, lambda s: s.earlier),
    ("truncated", Reason.TRUNCATED, lambda s: s.upload[:-1]),
    ("truncated within", Reason.TRUNCATED, lambda s: s.changed(lambda e: [*e[:-1], e[-1][:-1]])),
    ("nothing", Reason.TRUNCATED, lambda s: b""),
    ("bytes after it", Reason.MALFORMED, lambda s: s.upload + b"x"),
    ("wrong length", Reason.WRONG_LENGTH, lambda s: s.changed(lambda e: [*e[:-1], e[-1] + b"x"])),
    ("bit flipped", Reason.BIT_FLIPPED, lambda s: flip(s.upload, len(s.upload) - 9)),
    ("header flipped", Reason.WRONG_SIGNATURE, lambda s: flip(s.upload, 12 + 50)),
    (
        "another's signature",
        Reason.WRONG_SIGNATURE,
        lambda s: s.forged(identity=Identity.generate(s.me.name)),
    ),
    (
        "stranger",
        Reason.UNKNOWN_CLIENT,
        lambda s: s.forged(identity=Identity.generate("stranger"), block=0),
    ),
    ("re-keyed", Reason.RE_KEYED, lambda s: s.forged(key_fingerprint=os.urandom(32))),
    ("another plan", Reason.WRONG_PARAMETERS, lambda s: s.forged(parameters="bfv-2048/1")),
    ("another suite", Reason.WRONG_SUITE, lambda s: s.forged(suite="clear")),
    ("another federation", Reason.WRONG_FEDERATION, lambda s: s.forged(federation="banks")),
    ("another roster", Reason.WRONG_ROSTER, lambda s: s.forged(roster_digest=bytes(32))),
    ("another K", Reason.WRONG_POOLS, lambda s: s.forged(pools=4)),
    ("future", Reason.FUTURE, lambda s: s.forged(round=s.plan.round + 1)),
    ("a block is missing", Reason.WRONG_CHUNK, lambda s: s.changed(lambda e: e[:-1])),
    (
        "blocks in another order",
        Reason.WRONG_CHUNK,
        lambda s: s.changed(lambda e: [*e[:2], e[3], e[2], *e[4:]]),
    ),
    (
        "two senders",
        Reason.WRONG_ROLE,
        lambda s: s.forged(identity=list(s.federation.clients.values())[1]),
    ),
    (
        "another message",
        Reason.WRONG_PHASE,
        lambda s: sign_envelope(s.me, s.plan.header(Phase.AGREE, s.me.name), bytes(34)),
    ),
    ("not a message", Reason.TRUNCATED, lambda s: os.urandom(200)),
]


@pytest.mark.parametrize(
    ("protection", "key_holder"),
    [("masked", "clients"), ("bfv+masked", "clients"), ("bfv+masked", "authority")],
)
def test_refused_uploads_are_recorded_and_not_added(protection: str, key_holder: str) -> None:
    scene = make_scene(protection, key_holder)
    for what, reason, make in REFUSED:
        found = scene.running.add(make(scene))
        assert found == reason or (
            what == "not a message" and found in (Reason.WRONG_CHUNK, Reason.MALFORMED)
        ), what
    assert len(scene.running.server.refusals) == len(REFUSED)
    assert {refusal.sender for refusal in scene.running.server.refusals} <= {
        "?",
        "stranger",
        *scene.vectors,
    }
    # after all that the true bytes are still welcome, once
    assert scene.running.add(scene.upload) is None
    assert scene.running.add(scene.upload) == Reason.REPLAYED
    assert scene.running.add(scene.forged(body=lambda body: body, block=1)) == Reason.REPLAYED
    other = frames(
        [
            sign_envelope(
                scene.me,
                scene.plan.header(Phase.UPLOAD, scene.me.name, chunk=b, chunks=5),
                bytes(9),
            )
            for b in range(5)
        ]
    )
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


@pytest.mark.parametrize(
    ("protection", "key_holder"),
    [("plain", "clients"), ("bfv+masked", "clients"), ("masked", "clients")],
)
def test_damaged_bodies_with_good_signatures(protection: str, key_holder: str) -> None:
    scene = make_scene(protection, key_holder)
    assert scene.running.add(scene.forged(body=lambda body: body[:-8])) in (
        Reason.TRUNCATED,
        Reason.WRONG_LENGTH,
    )
    assert scene.running.add(scene.forged(body=lambda body: body + bytes(8))) == Reason.WRONG_LENGTH
    if protection != "masked":
        head = 73 + 64 if protection == "bfv+masked" else 0
        assert (
            scene.running.add(
                scene.forged(body=lambda body: body[:head] + b"\xff" * (len(body) - head))
            )
            == Reason.OUT_OF_RANGE
        )
    assert scene.running.add(scene.upload) is None
    check_exact(scene.running.open(), SHAPE, scene.vectors, list(scene.vectors), 2)


def body_of(plan: RoundPlan, cipher: ClientCipher | None, block: int, values: Integers) -> bytes:
    place = memoryview(bytearray(body_bytes(plan, block)))
    protect(plan, cipher, block, values, (), place)
    return bytes(place)


def test_a_ciphertext_of_another_client_is_a_replay() -> None:
    scene = make_scene("bfv+masked", "clients")
    names, running = list(scene.vectors), scene.running
    cipher = running.clients[names[0]]._cipher
    body = body_of(scene.plan, cipher, 0, scene.vectors[names[0]].head)
    copied = scene.forged(body=lambda _: body_of(scene.plan, cipher, 2, np.zeros(11, np.int64)))
    assert running.add(copied) is None
    again = shared_federation("bfv+masked", "clients").federation.begin(
        shared_federation("bfv+masked", "clients").next(), SHAPE
    )
    first, second = (
        frames(
            [
                sign_envelope(
                    again.clients[name]._identity,
                    again.plan.header(Phase.UPLOAD, name, chunk=block, chunks=5),
                    body
                    if block == 0
                    else body_of(
                        again.plan, cipher, block, scene.vectors[name].block(SHAPE, block)
                    ),
                )
                for block in range(5)
            ]
        )
        for name in names[:2]
    )
    assert again.add(first) is None
    assert again.add(second) == Reason.REPLAYED


def test_uploads_of_clients_that_dealt_no_shares_are_refused() -> None:
    federation = make_federation(clients=5)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    running = federation.begin(0, SHAPE, kills={names[0]: Phase.SHARE})
    for name in names[1:]:
        assert running.add(running.protect(name, vectors[name])) is None
    bodies = [np.zeros(running.plan.numbers(block), "<u8").tobytes() for block in range(5)]
    headers = [
        running.plan.header(Phase.UPLOAD, names[0], chunk=block, chunks=5) for block in range(5)
    ]
    upload = frames(
        [
            sign_envelope(federation.clients[names[0]], header, body)
            for header, body in zip(headers, bodies, strict=True)
        ]
    )
    assert running.add(upload) == Reason.UNKNOWN_CLIENT
    check_exact(running.open(), SHAPE, vectors, names[1:], 2)


def test_clients_outside_the_cohort_are_refused() -> None:
    federation = make_federation("plain", clients=5)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    running = federation.begin(0, SHAPE, cohort=names[:4])
    other = RoundClient(running.plan, federation.clients[names[4]])
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
    keys = {
        name: Advertise(shared if number < 2 else os.urandom(32), os.urandom(32), os.urandom(32))
        for number, name in enumerate(names)
    }
    with pytest.raises(RefusedError, match="share a key"):
        KeyBook.of(plan, keys)


# One vector a round


def test_no_second_vector_for_a_round_and_the_same_bytes_after_a_resume(tmp_path: Path) -> None:
    federation = make_federation("plain")
    running = federation.begin(3, SHAPE)
    name, vector = "client-0000", make_vectors(SHAPE, {"client-0000": 1})["client-0000"]
    store = FolderStore(tmp_path / "store")
    client = RoundClient(running.plan, federation.clients[name], store=store)
    sent = client.upload(vector)
    with pytest.raises(RoundRefusedError, match="already-begun"):
        client.upload(vector)
    resumed = RoundClient(
        running.plan, federation.clients[name], store=FolderStore(tmp_path / "store")
    )
    assert resumed.resend() == sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        resumed.upload(vector)
    assert running.add(sent) is None
    assert running.add(resumed.resend() or b"") == Reason.REPLAYED
    assert (tmp_path / "store" / "3.upload").stat().st_mode & 0o077 == 0
    later = RoundClient(
        federation.begin(4, SHAPE).plan,
        federation.clients[name],
        store=FolderStore(tmp_path / "store"),
    )
    assert later.resend() is None
    assert later.upload(vector) != sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        RoundClient(
            running.plan, federation.clients[name], store=FolderStore(tmp_path / "store")
        ).upload(vector)


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
    """The upload is stored; the process dies; the resumed client sends the same bytes, and others
    open its secrets.
    """
    federation = make_federation()
    running = federation.begin(0, SHAPE)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 2))
    running.protect(names[0], vectors[names[0]])
    again = RoundClient(
        running.plan, federation.clients[names[0]], store=federation._stores[names[0]]
    )
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
    made = {
        "flip": upload[:at] + bytes([upload[at] ^ byte]) + upload[at + 1 :],
        "cut": upload[:at],
        "random": data.draw(st.binary(max_size=300)),
    }[kind]
    assert scene.running.server.receive(made) is not None


SCENE: list[Scene] = []


@settings(max_examples=60)
@given(data=st.data())
def test_clients_and_authority_only_refuse(data: st.DataObject) -> None:
    """Damaged and well-signed nonsense alike: a typed refusal, and no share goes out."""
    scene = SCENE[0] if SCENE else SCENE.append(make_scene("masked", "clients")) or SCENE[0]
    plan, server = scene.plan, scene.federation._server
    client = scene.running.clients[data.draw(st.sampled_from(list(scene.vectors)))]
    phases = [
        Phase.ADVERTISE,
        Phase.SHARE,
        Phase.AGREE,
        Phase.OPEN_COUNTS,
        Phase.OPEN_POOLS,
        Phase.APPLY,
    ]
    phase = data.draw(st.sampled_from(phases))
    body = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.just(OpenRequest(bytes(32), (0, 1), (2,), (b"x",)).encode()),
            st.just(frames([b"x"])),
        )
    )
    signed = sign_envelope(
        server, plan.header(phase, "server", chunks=2 if phase == Phase.APPLY else 1), body
    )
    at = data.draw(st.integers(0, len(signed) - 1))
    for message in (signed, flip(signed, at), signed[:at], body):
        with pytest.raises(SecureSumError):
            client.receive(message)


@settings(max_examples=150)
@given(data=st.data())
def test_parsers_take_one_spelling_only(data: st.DataObject) -> None:
    raw = data.draw(st.binary(max_size=120))
    good: list[bytes] = [
        Advertise(bytes(32), bytes([1] * 32), bytes(32)).encode(),
        Dealers((2, 5)).encode(),
        Boxes((1, 4), ((2, b"ab"), (7, b""))).encode(),
        Survivors(bytes(32), (0, 3)).encode(),
        Agreement(bytes(32), 5).encode(),
        OpenRequest(bytes(32), (1,), (2,), (b"x", b"")).encode(),
        Revealed((0,), ((MASK_KEY, 1, bytes(71)), (0, 2, bytes(71)))).encode(),
        Counts(bytes(32), np.array([-1, 5]), (1,)).encode(),
    ]
    kinds = [Advertise, Dealers, Boxes, Survivors, Agreement, OpenRequest, Revealed, Counts]
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
