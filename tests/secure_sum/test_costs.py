"""What a message costs before it is known to be anybody's: its length, its header, a signature; and
what a long life costs: nothing more.
"""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from secure_sum.round_helpers import MASKED, Tape, make_federation, make_vectors

from secure_fl.crypto import envelope
from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.key_streams import KEY_BYTES
from secure_fl.secure_sum import inbox
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.sizes import most_bytes
from secure_fl.secure_sum.steps import PHASES, Step

SHAPE = BlockShape(pools=3, width=50, shared=4)


@pytest.mark.parametrize(("protection", "key_holder"), [*MASKED, ("plain", "clients")])
def test_no_message_of_a_round_is_longer_than_its_bound(protection: str, key_holder: str) -> None:
    """And bounds are near: a fifth of them is used at the least, by the longest message of
    each phase.
    """
    tape = Tape()
    federation = make_federation(protection, key_holder, 7, tape)
    running = federation.begin(0, SHAPE, kills={"client-0003": Phase.UPLOAD}, fewest=5)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 1))
    for name in vectors:
        if name != "client-0003":
            assert running.add(running.protect(name, vectors[name])) is None
    running.open()
    longest: dict[tuple[Phase, bool], int] = {}
    for sender, _, data in tape.messages:
        phase = read_header(data).phase if data[:4] == b"SFE1" else Phase.UPLOAD
        where = phase, sender == "server"
        longest[where] = max(longest.get(where, 0), len(data))
    for (phase, to_client), size in longest.items():
        assert size <= most_bytes(running.plan, phase, to_client=to_client) <= 5 * size + 2000


@pytest.mark.parametrize(
    "step",
    [
        Step.ADVERTISE,
        Step.SHARE,
        Step.UPLOAD,
        Step.AGREE,
        Step.COUNT_SHARES,
        Step.POOL_SHARES,
        Step.DIGESTS,
    ],
)
def test_a_message_that_is_too_long_is_neither_copied_nor_hashed(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = make_federation("masked", clients=3)
    plan = federation.begin(0, SHAPE).plan
    server, me = RoundServer(plan, federation._server), federation.clients["client-0001"]
    server.step = step
    body = bytes(most_bytes(plan, PHASES[step], to_client=False) + (1 << 22))
    signed = sign_envelope(me, plan.header(PHASES[step], me.name), body)
    if step == Step.UPLOAD:
        signed = frames([signed])
    monkeypatch.setattr(envelope, "_hashed", None)
    monkeypatch.setattr(inbox, "accept", None)
    tracemalloc.start()
    try:
        for message in (signed, memoryview(signed), body):
            assert server.receive(message) == "wrong-length"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 18


def test_clients_and_authority_look_at_the_length_first_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = make_federation("bfv+masked", "authority", 3)
    running = federation.begin(0, SHAPE)
    client, authority = running.clients["client-0001"], running._authority
    assert authority is not None
    long = {
        phase: sign_envelope(
            federation._server,
            running.plan.header(phase, "server"),
            bytes(most_bytes(running.plan, phase, to_client=True)),
        )
        for phase in (Phase.SHARE, Phase.AGREE, Phase.OPEN_COUNTS, Phase.OPEN_POOLS)
    }
    monkeypatch.setattr(envelope, "_hashed", None)
    for phase, message in long.items():
        party = authority if "OPEN" in phase.name else client
        with pytest.raises(Exception, match="wrong-length"):
            party.receive(message)


def test_many_parts_are_counted_before_they_are_cut() -> None:
    federation = make_federation("masked", clients=3)
    plan = federation.begin(0, BlockShape(2, 2_000_000)).plan
    server = RoundServer(plan, federation._server)
    server.step = Step.UPLOAD
    many = memoryview((500_000).to_bytes(4, "big") + bytes(8 * 500_000))
    tracemalloc.start()
    try:
        assert server.receive(many) == "wrong-chunk"
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_a_flood_fills_no_record_and_keeps_nobody_out() -> None:
    federation = make_federation("masked", clients=3)
    running = federation.begin(0, SHAPE)
    server, here = RoundServer(running.plan, federation._server), running.clients["client-0000"]
    head = struct.pack(
        "<4sBIHHHQ32s32s32s", b"SFE1", 1, 0, 3, 0, 1, 0, bytes(32), bytes(32), bytes(32)
    )
    for number in range(2000):
        name = b"%064d" % number
        server.receive(head + b"\x01m\x01p\x08embedded" + bytes([len(name)]) + name + bytes(64))
    assert len(server.refusals) == 64
    assert server.refused == {"unknown-client": 2000}
    assert max(len(refusal.sender) for refusal in server.refusals) <= 64
    assert (
        server.receive(
            sign_envelope(
                here._identity,
                running.plan.header(Phase.ADVERTISE, here.name),
                here._public().encode(),
            )
        )
        is None
    )


def test_seeds_of_old_rounds_are_forgotten_and_those_of_late_ones_are_not() -> None:
    """200 rounds of 6 blocks and 64 neighbours: the record stays as it was after the first few."""
    used, sizes, count = UsedSeeds(), list[int](), 0

    def block() -> list[bytes]:
        nonlocal count
        count += 1
        return [
            count.to_bytes(8, "big") + other.to_bytes(KEY_BYTES - 8, "big") for other in range(64)
        ]

    first, late = block(), block()
    used.spend(first)
    for _ in range(200):
        for _ in range(6):
            used.spend(block())
        sizes.append(len(used._digests))
    assert max(sizes) == sizes[15] == 64 * 64
    used.spend(first)
    used.spend(late)
    with pytest.raises(Exception, match="used once"):
        used.spend(late)
    used.widen(1000)
    for _ in range(900):
        used.spend(block())
    with pytest.raises(Exception, match="used once"):
        used.spend([bytes(KEY_BYTES), late[3]])
