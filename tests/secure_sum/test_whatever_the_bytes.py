"""Whatever the bytes: parties refuse with a typed error, and a body has one spelling."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.round_helpers import flip
from secure_sum.scenes import Scene, make_scene

from secure_fl.crypto.envelope import Phase, open_envelope, sign_envelope
from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Advertise,
    Agreement,
    Boxes,
    Counts,
    Dealers,
    OpenRequest,
    Revealed,
    Survivors,
)


@cache
def masked_scene() -> Scene:
    """One round for all examples: what is refused leaves it as it was."""
    return make_scene("masked", "clients")


@settings(max_examples=60)
@given(data=st.data())
def test_the_server_never_raises_on_a_message(data: st.DataObject) -> None:
    scene = masked_scene()
    upload = scene.upload
    at, byte = data.draw(st.integers(0, len(upload) - 1)), data.draw(st.integers(1, 255))
    kind = data.draw(st.sampled_from(["flip", "cut", "random"]))
    made = {
        "flip": upload[:at] + bytes([upload[at] ^ byte]) + upload[at + 1 :],
        "cut": upload[:at],
        "random": data.draw(st.binary(max_size=300)),
    }[kind]
    assert scene.running.server.receive(made) is not None


@settings(max_examples=60)
@given(data=st.data())
def test_clients_and_authority_only_refuse(data: st.DataObject) -> None:
    """Damaged and well-signed nonsense alike: a typed refusal, and no share goes out."""
    scene = masked_scene()
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
