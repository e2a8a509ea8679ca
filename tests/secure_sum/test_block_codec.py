"""What a client writes run by run, and in its place, is what the parts give as wholes."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
from secure_sum.round_helpers import make_federation
from secure_sum.whole_blocks import mask

from secure_fl.crypto.envelope import Phase, head_bytes, sign_envelope, sign_in_place
from secure_fl.crypto.key_streams import RUN
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import ClientCipher, body_bytes, protect, server_cipher
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.framing import empty_frames, frames
from secure_fl.secure_sum.masks import UsedSeeds, mask_terms
from secure_fl.secure_sum.plan import RoundPlan

WIDTHS = [1, 4096, 2 * RUN, 3 * RUN + 1, 7 * RUN - 5]


def plan_of(protection: str, width: int) -> tuple[RoundPlan, ClientCipher | None]:
    running = make_federation(protection, "authority").begin(0, BlockShape(1, width))
    return running.plan, next(iter(running.clients.values()))._cipher


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_runs_make_the_whole_vector(protection: str, width: int) -> None:
    plan, cipher = plan_of(protection, width)
    values = np.random.default_rng(0).integers(-1000, 1001, width)
    own, pairs = os.urandom(32), {3: os.urandom(32), 5: os.urandom(32)}
    slots = np.zeros(plan.numbers(1), np.uint64)
    slots[: plan.layout.slots(width)] = plan.layout.pack(values)
    terms = mask_terms(own=4, self_seed=own, pairs=pairs, used=UsedSeeds()) if plan.masked else ()
    if plan.masked:
        mask(
            slots, own=4, self_seed=own, pairs=pairs, modulus=plan.layout.modulus, used=UsedSeeds()
        )
    place = bytearray(os.urandom(body_bytes(plan, 1)))
    protect(plan, cipher, 1, values, terms, memoryview(place))
    assert bytes(place) == slots.astype("<u8").tobytes()


@pytest.mark.parametrize("width", WIDTHS)
def test_encrypted_runs_make_the_whole_vector(width: int) -> None:
    federation = make_federation("bfv+masked", "clients")
    running = federation.begin(0, BlockShape(1, width))
    plan, cipher = running.plan, next(iter(running.clients.values()))._cipher
    values = np.random.default_rng(0).integers(-1000, 1001, width)
    terms = mask_terms(own=4, self_seed=os.urandom(32), pairs={3: os.urandom(32)}, used=UsedSeeds())
    place = memoryview(bytearray(body_bytes(plan, 1)))
    protect(plan, cipher, 1, values, terms, place)
    expected = np.zeros(plan.numbers(1), np.uint64)
    expected[: plan.layout.slots(width)] = plan.layout.pack(values)
    masked = expected.copy()
    mask(
        masked,
        own=4,
        self_seed=terms[0][0],
        pairs={3: terms[1][0]},
        modulus=plan.layout.modulus,
        used=UsedSeeds(),
    )
    holder = next(iter(running.clients.values()))._opener
    assert holder is not None
    assert holder._cipher is not None
    server = server_cipher(plan)
    assert server is not None
    total = server.new_sum(plan.numbers(1))
    server.add_vector(total, server.read(total, place))
    assert np.array_equal(holder._cipher.decrypt(server.finish(total), plan.numbers(1)), masked)


def test_messages_in_their_place_are_the_joined_ones() -> None:
    running = make_federation("masked").begin(0, BlockShape(1, 10))
    identity = next(iter(running.clients.values()))._identity
    header = running.plan.header(Phase.UPLOAD, identity.name)
    bodies = [os.urandom(size) for size in (0, 1, 1000)]
    data, places = empty_frames([head_bytes(header) + len(body) for body in bodies])
    for body, place in zip(bodies, places, strict=True):
        place[head_bytes(header) :] = body
        sign_in_place(identity, header, place)
    assert data == frames([sign_envelope(identity, header, body) for body in bodies])


@pytest.mark.parametrize("protection", ["plain", "masked", "bfv+masked"])
def test_a_place_of_another_length_is_refused(protection: str) -> None:
    plan, cipher = plan_of(protection, 10)
    size = body_bytes(plan, 1)
    for wrong in (size - 1, size + 1):
        with pytest.raises(SecureSumError, match=f"{size} bytes"):
            protect(plan, cipher, 1, np.zeros(10, np.int64), (), memoryview(bytearray(wrong)))


@pytest.mark.parametrize("protection", ["plain", "masked", "bfv+masked"])
def test_an_upload_cannot_change_after_it_was_signed_and_stored(protection: str) -> None:
    shape = BlockShape(1, 10)
    running = make_federation(protection, "authority").begin(0, shape)
    for name, client in running.clients.items():
        upload = running.protect(name, BlockVector.one_hot(shape, 0, np.ones(10, np.int64)))
        with pytest.raises(TypeError):
            upload[-1] = 0
        assert client.resend() == upload
        assert running.add(upload) is None


@pytest.mark.parametrize(("protection", "most"), [("masked", 1.0), ("bfv+masked", 1.85)])
def test_an_upload_is_in_memory_once(protection: str, most: float) -> None:
    """Peak of what numpy and Python allocate, in masked vectors: a public-key body is 1.84 of them.
    Runs and SEAL may take 1.5 MiB.
    """
    shape = BlockShape(1, 600_000)
    federation = make_federation(protection, "authority", clients=3)
    running = federation.begin(0, shape)
    vectors = [BlockVector.one_hot(shape, 0, np.ones(shape.width, np.int64)) for _ in range(3)]
    names = list(federation.clients)
    running.protect(names[0], vectors[0])  # tables and imports
    tracemalloc.start()
    try:
        running.protect(names[1], vectors[1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 3 * 2**19 + most * 8 * sum(
        running.plan.numbers(block) for block in range(shape.blocks)
    )
