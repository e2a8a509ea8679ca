"""Encrypted sums are exact up to the field's edge, cost what they should, and refuse what they
cannot open rightly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from he.helpers import EDGE, Parties, pack, parties, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.bfv import (
    BfvClient,
    BfvHolder,
    BfvServer,
    check_noise_budget,
    measure_noise_budget,
)
from secure_fl.he.bit_packing import PackedWords
from secure_fl.he.ciphertexts import HEAD_BYTES, Kind, body_bytes
from secure_fl.he.parameters import BFV_4096, BFV_4096_58, KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SEED_BYTES, SealBridge

T = BFV_4096.plain_modulus
OTHER_SCHEME = replace(BFV_4096, scheme="ckks")
HOLDERS: list[KeyHolder] = ["clients", "authority"]
SETS = [BFV_4096, BFV_4096_58]


@pytest.fixture(
    scope="module",
    params=[(holder, chosen) for holder in HOLDERS for chosen in SETS],
    ids=lambda p: f"{p[0]}-{p[1].name}",
)
def party(request: pytest.FixtureRequest) -> Parties:
    return parties(*request.param)


@pytest.fixture(scope="module")
def shared() -> Parties:
    return parties("clients")


def refused(reason: Reason) -> pytest.RaisesExc[RefusedError]:
    return pytest.RaisesExc(RefusedError, check=lambda error: error.reason is reason)


@pytest.mark.parametrize("clients", [1, 2, 3, 16])
def test_sums_are_exact_to_the_edge_of_the_field(party: Parties, clients: int) -> None:
    rng = np.random.default_rng(clients)
    n, share = 4100, EDGE // clients
    low, high = rng.integers(-share, share + 1, (2, clients, n))
    low[:, 0], high[:, 0] = share, -share
    low[:, 1], high[:, 1] = -share, share
    masks = rng.integers(0, T, (clients, n), dtype=np.uint64)
    total = party.server.new_sum(n)
    for k in range(clients):
        masked = ((pack(low[k], high[k], T).astype(object) + masks[k].astype(object)) % T).astype(
            np.uint64
        )
        party.server.add(total, party.client.encrypt(masked))
    known = (masks.astype(object).sum(0) % T).astype(np.uint64)
    got_low, got_high = unpack(
        party.holder.decrypt(party.server.subtract_plain(total, known), n), T
    )
    np.testing.assert_array_equal(got_low, low.sum(0))
    np.testing.assert_array_equal(got_high, high.sum(0))
    assert total.added == clients


@pytest.mark.parametrize("ciphertexts", [8, 9, 17])
def test_vectors_of_several_runs_come_back(party: Parties, ciphertexts: int) -> None:
    """Words are packed 32,768 at a time: eight ciphertexts with one half each, or four with two."""
    slots = np.random.default_rng(ciphertexts).integers(
        0, T, ciphertexts * 4096 - 5, dtype=np.uint64
    )
    total = party.server.new_sum(slots.size)
    party.server.add(total, party.client.encrypt(slots))
    np.testing.assert_array_equal(
        party.holder.decrypt(party.server.finish(total), slots.size), slots
    )


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(
            st.sampled_from([0, 1, 2, T // 2, T // 2 + 1, T - 2, T - 1]), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=5,
    )
)
def test_sums_are_sums_modulo_t(shared: Parties, vectors: list[list[int]]) -> None:
    total = shared.server.new_sum(3)
    for vector in vectors:
        shared.server.add(total, shared.client.encrypt(np.array(vector, np.uint64)))
    assert shared.holder.decrypt(shared.server.finish(total), 3).tolist() == [
        sum(column) % T for column in zip(*vectors, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("holder", HOLDERS)
def test_256_clients_at_the_edge(holder: KeyHolder) -> None:
    party, share = parties(holder), EDGE // 256
    total = party.server.new_sum(4096)
    slots = pack(np.full(4096, share), np.full(4096, -share), T)
    for _ in range(256):
        party.server.add(total, party.client.encrypt(slots))
    low, high = unpack(party.holder.decrypt(party.server.finish(total), 4096), T)
    assert (low == 256 * share).all()
    assert (high == -256 * share).all()


def test_lazy_additions_stop_before_64_bits_are_full() -> None:
    """1023 uploads are added without reduction, the next one reduces first: nothing ever wraps
    at 2^64.
    """
    server = BfvServer(BFV_4096, bytes(32))
    total = server.new_sum(1)
    assert (
        BFV_4096.lazy_additions * (BFV_4096.modulus - 1)
        < 2**64
        <= (BFV_4096.lazy_additions + 1) * (BFV_4096.modulus - 1)
    )
    party = parties("authority")
    server = party.server
    total = server.new_sum(1)
    body = party.client.encrypt(np.array([1], np.uint64))
    total.words[:] = BFV_4096.modulus - 1
    total.pending = BFV_4096.lazy_additions
    server.add(total, body)
    assert total.pending == 2
    assert int(total.words.max()) < 2 * BFV_4096.modulus


def test_more_uploads_than_lazy_additions_still_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    party = parties("authority", BFV_4096_58)
    monkeypatch.setattr(ParameterSet, "lazy_additions", property(lambda self: 3))
    total = party.server.new_sum(2)
    for _ in range(9):
        party.server.add(total, party.client.encrypt(np.array([T - 1, 5], np.uint64)))
    assert party.holder.decrypt(party.server.finish(total), 2).tolist() == [T - 9, 45]


def test_bytes_a_field() -> None:
    """Two fields a slot: at most 4 bytes a field when seeded, 7.8 otherwise, and the same length
    whatever is inside.
    """
    for chosen, seeded, full in ((BFV_4096, 3.42, 6.81), (BFV_4096_58, 3.67, 7.31)):
        assert body_bytes(chosen, 500_000, Kind.SEEDED) / 1e6 <= seeded < 4
        assert body_bytes(chosen, 500_000, Kind.FULL) / 1e6 <= full < 7.8


def test_length_depends_on_nothing_but_the_count(party: Parties) -> None:
    kind = Kind.SEEDED if party.key.public is None else Kind.FULL
    for content in (np.zeros(5000, np.uint64), np.full(5000, T - 1, np.uint64)):
        assert len(party.client.encrypt(content)) == body_bytes(party.client.parameters, 5000, kind)


def test_no_seed_or_ciphertext_comes_twice(shared: Parties) -> None:
    slots = np.zeros(3 * 4096, np.uint64)
    bodies = [shared.client.encrypt(slots) for _ in range(20)]
    seeds = {
        body[HEAD_BYTES + 64 * k : HEAD_BYTES + 64 * (k + 1)] for body in bodies for k in range(3)
    }
    assert len(seeds) == 60
    assert len(set(bodies)) == 20


def test_a_repeated_seed_is_refused_and_the_sum_is_untouched(shared: Parties) -> None:
    total = shared.server.new_sum(2)
    body = shared.client.encrypt(np.array([3, 4], np.uint64))
    shared.server.add(total, body)
    with refused(Reason.REPLAYED):
        shared.server.add(total, body)
    assert shared.holder.decrypt(shared.server.finish(total), 2).tolist() == [3, 4]


def test_ciphertexts_look_uniform(shared: Parties) -> None:
    """Words of an encryption of zeros: every bit is set half the time (5 sigma at 40,960 words)."""
    body = shared.client.encrypt(np.zeros(10 * 4096, np.uint64))
    words = PackedWords(np.frombuffer(body, np.uint8, offset=HEAD_BYTES + 640), 40_960, 54).take(
        0, 40_960
    )
    shares = [float(((words >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(53)]
    assert max(abs(share - 0.5) for share in shares) < 5 * 0.5 / 40_960**0.5


def test_wrong_inputs_are_refused(shared: Parties) -> None:
    for bad in (
        np.array([T], np.uint64),
        np.array([1], np.int64),
        np.zeros(0, np.uint64),
        np.zeros((2, 2), np.uint64),
    ):
        with pytest.raises(SecureSumError):
            shared.client.encrypt(bad)  # type: ignore[arg-type]
    total = shared.server.new_sum(2)
    with refused(Reason.WRONG_LENGTH):
        shared.server.finish(total)
    with pytest.raises(SecureSumError, match="differ in length"):
        shared.server.subtract_plain(total, np.zeros(3, np.uint64))


def test_a_body_that_is_not_filled_is_not_given_out(party: Parties) -> None:
    """Memory that nobody wrote holds what this process worked on before."""
    one = np.ones(4096, np.uint64)
    for runs in ([], [one], [one, one, one], [one, one[:4000], one]):
        with pytest.raises(SecureSumError, match="2 ciphertexts for 8192") as caught:
            party.client.body(8192, runs)
        assert caught.value.field == "ciphertexts"
    size = body_bytes(party.client.parameters, 8192, party.client.encryptor.kind)
    for wrong in (size - 1, size + 1):
        with pytest.raises(SecureSumError, match=f"{size} bytes"):
            party.client.body(8192, [one, one], memoryview(bytearray(wrong)))
    assert len(party.client.body(8192, [one, one])) == size


def test_the_refusal_table_of_bodies(shared: Parties) -> None:
    other, third = parties("clients"), parties("clients", BFV_4096_58)
    good = shared.client.encrypt(np.arange(10, dtype=np.uint64))
    above = bytearray(good)
    above[HEAD_BYTES + 64 :] = b"\xff" * (len(good) - HEAD_BYTES - 64)
    table = [
        (Reason.RE_KEYED, other.client.encrypt(np.arange(10, dtype=np.uint64))),
        (Reason.WRONG_PARAMETERS, third.client.encrypt(np.arange(10, dtype=np.uint64))),
        (Reason.TRUNCATED, b""),
        (Reason.TRUNCATED, good[: HEAD_BYTES - 1]),
        (Reason.TRUNCATED, good[:-1]),
        (Reason.WRONG_LENGTH, good + b"\0"),
        (Reason.WRONG_LENGTH, shared.client.encrypt(np.arange(11, dtype=np.uint64))),
        (Reason.MALFORMED, b"XXXX" + good[4:]),
        (Reason.MALFORMED, good[:4] + bytes([Kind.SUM]) + good[5:]),
        (Reason.OUT_OF_RANGE, bytes(above)),
    ]
    total = shared.server.new_sum(10)
    for reason, body in table:
        with refused(reason):
            shared.server.add(total, body)
    assert total.added == 0
    with refused(Reason.MALFORMED):
        shared.holder.decrypt(good, 10)


def test_another_key_or_noise_shows_in_the_budget(shared: Parties) -> None:
    """Even with the fingerprint forged, nothing wrong is given out."""
    other = parties("clients")
    total = other.server.new_sum(10)
    other.server.add(total, other.client.encrypt(np.arange(10, dtype=np.uint64)))
    foreign = other.server.finish(total)
    forged = foreign[:41] + shared.key.fingerprint + foreign[73:]
    with refused(Reason.NOISE_BUDGET):
        shared.holder.decrypt(forged, 10)
    damaged = bytearray(foreign)
    damaged[HEAD_BYTES + 1 + 4 * 4096] ^= (
        0x20  # 2^13 in the first word of c1: half of q/t, times the secret
    )
    with refused(Reason.NOISE_BUDGET):
        other.holder.decrypt(bytes(damaged), 10)


def test_the_budget_does_not_see_every_change(shared: Parties) -> None:
    """BFV is malleable: a shift of c0 by q/t shifts the opened sum by one. That is why bodies
    travel signed.
    """
    total = shared.server.new_sum(10)
    shared.server.add(total, shared.client.encrypt(np.arange(10, dtype=np.uint64)))
    total.words[0, 0, 0] += BFV_4096.modulus // T
    assert shared.holder.decrypt(shared.server.finish(total), 10).tolist() == [1, *range(1, 10)]


@pytest.mark.parametrize("holder", HOLDERS)
def test_noise_budget_is_measured_and_poor_set_ups_refused(holder: KeyHolder) -> None:
    assert check_noise_budget(BFV_4096, holder, 16) >= 4
    assert measure_noise_budget(BFV_4096, holder, 1) >= 5
    assert (
        check_noise_budget(BFV_4096_58, holder, 100) >= 2
    )  # 2.7 or 3.7: whole bits are measured, with fresh noise
    with refused(Reason.NOISE_BUDGET):
        check_noise_budget(BFV_4096, holder, 10**6)
    with pytest.raises(SecureSumError):
        check_noise_budget(BFV_4096, holder, 0)
    with refused(Reason.WRONG_PARAMETERS):
        check_noise_budget(OTHER_SCHEME, holder, 2)


def test_the_extrapolated_budget_is_no_better_than_the_measured_one() -> None:
    """64 real uploads against the estimate from 16."""
    party = parties("clients")
    total = party.server.new_sum(4096)
    for _ in range(64):
        party.server.add(total, party.client.encrypt(np.full(4096, T - 1, np.uint64)))
    _, measured = party.holder.open(party.server.finish(total), 4096)
    assert measure_noise_budget(BFV_4096, "clients", 64) <= measured + 1


def plaintext(bridge: SealBridge, coefficients: np.ndarray[Any, Any]) -> Any:
    """SEAL's own, from its text form."""
    terms = [
        f"{value:X}x^{power}"
        for power, value in enumerate(coefficients.tolist())
        if value and power
    ]
    return bridge.api.Plaintext(" + ".join([*reversed(terms), f"{int(coefficients[0]):X}"]))


def hard_numbers() -> np.ndarray[Any, Any]:
    numbers = np.random.default_rng(1).integers(0, T, 4096, dtype=np.uint64)
    numbers[:4] = 0, 1, T - 1, T // 2
    return numbers


def test_encryption_adds_what_seal_adds(party: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """To halves that are known in place of an encryption of zero; sums pass q on the way."""
    bridge, numbers = party.holder._bridge, hard_numbers()
    halves = np.random.default_rng(2).integers(
        0, party.client.parameters.modulus, (2, 4096), dtype=np.uint64
    )
    theirs = bridge.ciphertext(halves)
    bridge.api.Evaluator(bridge.context).add_plain_inplace(theirs, plaintext(bridge, numbers))
    made = (
        (halves[:1], bytes(SEED_BYTES))
        if party.client.encryptor.kind is Kind.SEEDED
        else (halves, b"")
    )
    monkeypatch.setattr(party.client.encryptor, "ciphertext", lambda: made)
    [(found, _)] = list(party.client._ciphertexts(numbers))
    difference = (
        found[0].astype(object) - bridge.cipher_words(theirs)[0].astype(object)
    ) % party.client.parameters.modulus
    assert set(np.unique(difference)) <= {0, 1, party.client.parameters.modulus - 1}
    assert int(found[0].max()) < party.client.parameters.modulus
    assert [words.tolist() for words in found[1:]] == [words.tolist() for words in made[0][1:]]


def test_subtraction_matches_seal(shared: Parties) -> None:
    """`sub_plain` of SEAL and the words here differ by a unit at most."""
    bridge, masks = shared.holder._bridge, hard_numbers()
    evaluator = bridge.api.Evaluator(bridge.context)
    total = shared.server.new_sum(4096)
    shared.server.add(total, shared.client.encrypt(np.arange(4096, dtype=np.uint64)))
    theirs = bridge.ciphertext(bridge.cipher_words(total.grown[0]))
    evaluator.sub_plain_inplace(theirs, plaintext(bridge, masks))
    shared.server.subtract_plain(total, masks)
    difference = (
        total.words[0].astype(object) - bridge.cipher_words(theirs).astype(object)
    ) % BFV_4096.modulus
    assert set(np.unique(difference[0])) <= {0, 1, BFV_4096.modulus - 1}
    assert not difference[1].any()


def test_nothing_secret_is_shown(shared: Parties) -> None:
    text = repr(shared.key) + repr(shared.key.secret) + str(shared.client) + str(shared.holder)
    assert shared.key.secret.data[:16].hex() not in text
    assert "data" not in repr(shared.key.secret)
    with refused(Reason.WRONG_KEY):
        type(shared.key.secret)(BFV_4096, b"short")


def test_wrong_scheme_is_refused() -> None:
    key = parties("clients").key
    wrong = type(key.secret)(OTHER_SCHEME, bytes(16 * 4096))
    with refused(Reason.WRONG_PARAMETERS):
        BfvClient(wrong)
    with refused(Reason.WRONG_PARAMETERS):
        BfvHolder(type(key)(wrong))
