"""What a server refuses of keys and uploads, recorded with a word and without a trace in the
sum.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from secure_sum.round_helpers import (
    MASKED,
    SHAPE,
    check_exact,
    flip,
    make_federation,
    make_vectors,
    shared_federation,
)
from secure_sum.scenes import Scene, make_scene

from secure_fl.crypto.envelope import Phase, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum.block_codec import ClientCipher, body_bytes, protect
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.key_directory import KeyBook
from secure_fl.secure_sum.messages import (
    Advertise,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer

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
        lambda s: sign_envelope(s.me, s.plan.header(Phase.AGREE, s.me.name), bytes(66)),
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
