"""Sums over clients, pools, signs and drop-outs are exact, equal under every protection, and small
pools stay closed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.round_helpers import (
    CLIENTS,
    COMBINATIONS,
    MASKED,
    SHAPE,
    check_exact,
    make_federation,
    make_vectors,
    shared_federation,
)

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import open_sum
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.opener import SumOpener

PHASES = [
    Phase.ADVERTISE,
    Phase.SHARE,
    Phase.UPLOAD,
    Phase.AGREE,
    Phase.OPEN_COUNTS,
    Phase.OPEN_POOLS,
    Phase.APPLY,
]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[int], int, int, dict[int, Phase], int, int]:
    pools, width = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 7, 40]))
    choices = draw(st.lists(st.integers(0, pools - 1), min_size=CLIENTS, max_size=CLIENTS))
    kills = draw(st.dictionaries(st.integers(0, CLIENTS - 1), st.sampled_from(PHASES), max_size=2))
    return choices, pools, width, kills, draw(st.integers(0, 2**31)), draw(st.integers(1, 3))


def run_one(
    protection: str, key_holder: str, drawn: tuple[list[int], int, int, dict[int, Phase], int, int]
) -> None:
    choices, pools, width, kills, seed, minimum = drawn
    rounds = shared_federation(protection, key_holder)
    names = list(rounds.federation.clients)
    shape = BlockShape(pools, width, shared=seed % 3)
    edge = 2**19 - 1
    vectors = make_vectors(shape, dict(zip(names, choices, strict=True)), seed, edge // CLIENTS)
    killed = {names[number]: phase for number, phase in kills.items()}
    # three of five shares open a secret and three clients the sums: two may go at any time
    rules = {"threshold": 3, "appliers": 3, "minimum": minimum}
    outcome = rounds.federation.round(rounds.next(), vectors, shape, kills=killed, **rules)
    gone = Phase.UPLOAD
    survivors = [name for name in names if killed.get(name, Phase.APPLY) > gone]
    check_exact(outcome, shape, vectors, survivors, minimum)
    masked = "masked" in protection
    early = {name: phase for name, phase in killed.items() if phase <= Phase.UPLOAD}
    for name, phase in early.items():
        assert outcome.missed[name] == (phase.name.lower() if masked else "upload")


@pytest.mark.parametrize(
    ("protection", "key_holder"), [pair for pair in COMBINATIONS if pair[0] in ("plain", "masked")]
)
@settings(max_examples=25)
@given(drawn=rounds())
def test_sums_are_exact(
    protection: str, key_holder: str, drawn: tuple[list[int], int, int, dict[int, Phase], int, int]
) -> None:
    run_one(protection, key_holder, drawn)


@pytest.mark.parametrize(
    ("protection", "key_holder"), [pair for pair in COMBINATIONS if "bfv" in pair[0]]
)
@settings(max_examples=5)
@given(drawn=rounds())
def test_encrypted_sums_are_exact(
    protection: str, key_holder: str, drawn: tuple[list[int], int, int, dict[int, Phase], int, int]
) -> None:
    run_one(protection, key_holder, drawn)


def test_every_protection_opens_the_same() -> None:
    digests = set()
    for protection, key_holder in COMBINATIONS:
        rounds = shared_federation(protection, key_holder)
        names = list(rounds.federation.clients)
        vectors = make_vectors(SHAPE, dict(zip(names, [0, 1, 1, 2, 0], strict=True)), 7, 2**19 // 5)
        outcome = rounds.federation.round(
            rounds.next(), vectors, SHAPE, kills={names[4]: Phase.UPLOAD}, threshold=3
        )
        check_exact(outcome, SHAPE, vectors, names[:4], 2)
        assert outcome.opened.passing == (1,)
        digests.add(outcome.digest)
    assert len(digests) == 1


KILLS = [
    (*pair, phase)
    for pair in COMBINATIONS
    for phase in PHASES
    if pair in MASKED or phase in (Phase.UPLOAD, Phase.OPEN_POOLS, Phase.APPLY)
]


@pytest.mark.parametrize(("protection", "key_holder", "phase"), KILLS)
def test_a_killed_client_costs_its_own_update(
    protection: str, key_holder: str, phase: Phase
) -> None:
    rounds = shared_federation(protection, key_holder)
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    outcome = rounds.federation.round(
        rounds.next(), vectors, SHAPE, kills={names[0]: phase}, appliers=None
    )
    check_exact(outcome, SHAPE, vectors, names[1:] if phase <= Phase.UPLOAD else names, 2)
    assert outcome.refusals == ()


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
@pytest.mark.parametrize(
    "phase",
    [Phase.ADVERTISE, Phase.SHARE, Phase.UPLOAD, Phase.AGREE, Phase.OPEN_COUNTS, Phase.OPEN_POOLS],
)
def test_below_the_threshold_nothing_opens(protection: str, key_holder: str, phase: Phase) -> None:
    rounds = shared_federation(protection, key_holder)
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    with pytest.raises(RoundRefusedError) as caught:
        rounds.federation.round(
            rounds.next(),
            vectors,
            SHAPE,
            kills=dict.fromkeys(names[:2], phase),
            threshold=4,
            fewest=4,
        )
    assert caught.value.reason == RoundReason.TOO_FEW


@pytest.mark.parametrize(("protection", "key_holder"), COMBINATIONS)
def test_fewest_holds_under_every_protection(protection: str, key_holder: str) -> None:
    rounds = shared_federation(protection, key_holder)
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    with pytest.raises(RoundRefusedError) as caught:
        rounds.federation.round(
            rounds.next(),
            vectors,
            SHAPE,
            kills=dict.fromkeys(names[:2], Phase.UPLOAD),
            threshold=3,
            fewest=4,
        )
    assert caught.value.reason == RoundReason.TOO_FEW


@pytest.mark.parametrize(
    ("protection", "key_holder"), [("masked", "clients"), ("bfv+masked", "authority")]
)
def test_sparse_neighbourhoods(protection: str, key_holder: str) -> None:
    rounds = shared_federation(protection, key_holder, 14)
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, {name: number % 3 for number, name in enumerate(names)})
    kills = {names[2]: Phase.UPLOAD, names[9]: Phase.SHARE, names[5]: Phase.OPEN_POOLS}
    outcome = rounds.federation.round(
        rounds.next(), vectors, SHAPE, kills=kills, degree=10, colluders=0
    )
    check_exact(
        outcome, SHAPE, vectors, [name for name in names if name not in (names[2], names[9])], 2
    )


def test_one_pool_without_counts() -> None:
    for protection, key_holder in COMBINATIONS:
        rounds = shared_federation(protection, key_holder)
        names = list(rounds.federation.clients)
        for head in (0, 1):
            shape = BlockShape(1, 9, head=head, counted=False)
            vectors = {name: BlockVector(np.full(head, 3), [np.arange(9) - 4]) for name in names}
            outcome = rounds.federation.round(rounds.next(), vectors, shape)
            assert outcome.opened.passing == (0,)
            np.testing.assert_array_equal(outcome.opened.pools[0], 5 * (np.arange(9) - 4))
            np.testing.assert_array_equal(outcome.opened.head, np.full(head, 15))


def test_counts_in_units_with_noise() -> None:
    rounds = shared_federation("masked", "clients")
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 2], strict=True)))
    noisy = {
        name: BlockVector(vector.head * 100 + np.array([10, -10, 5]), vector.pools, vector.shared)
        for name, vector in vectors.items()
    }
    outcome = rounds.federation.round(rounds.next(), noisy, SHAPE, count_unit=100)
    np.testing.assert_array_equal(outcome.opened.head, [250, 150, 125])
    assert outcome.opened.passing == (0,)


@pytest.mark.parametrize(("protection", "key_holder"), COMBINATIONS)
def test_sums_beyond_what_clients_can_send_are_refused(protection: str, key_holder: str) -> None:
    rounds = shared_federation(protection, key_holder)
    names = list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 1), most=100)
    liar = replace(vectors[names[0]], pools=[np.full(11, value) for value in (0, 5000, 0)])
    with pytest.raises(RefusedError) as caught:
        rounds.federation.round(rounds.next(), vectors | {names[0]: liar}, SHAPE, bound=100)
    assert caught.value.reason == Reason.OUT_OF_RANGE
    check_exact(
        rounds.federation.round(rounds.next(), vectors, SHAPE, bound=100), SHAPE, vectors, names, 2
    )


def test_keys_rotate() -> None:
    federation = make_federation("bfv+masked")
    federation = type(federation)(3, rotation_rounds=2)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 0))
    prints = []
    for number in range(5):
        running = federation.begin(number, SHAPE)
        prints.append(running.plan.key_fingerprint)
        for name in names:
            assert running.add(running.protect(name, vectors[name])) is None
        check_exact(running.open(), SHAPE, vectors, names, 2)
    assert prints[0] == prints[1] != prints[2] == prints[3] != prints[4]
    assert prints[4] != prints[0]


def test_record_of_bytes_and_seconds() -> None:
    federation = make_federation("bfv+masked", "authority", 3)
    names = list(federation.clients)
    outcome = federation.round(0, make_vectors(SHAPE, dict.fromkeys(names, 0)), SHAPE)
    phases = ["advertise", "share", "upload", "agree", "open_counts", "open_pools", "apply"]
    assert list(outcome.up) == phases
    assert set(outcome.down) == {"advertise", "share", "agree", "open_counts", "open_pools"}
    assert set(outcome.seconds["upload"]) == {"clients", "server"}
    assert outcome.seconds["apply"]["holder"] > 0
    assert set(outcome.uploads) == set(names)


def test_a_holder_opens_each_step_once_and_in_order() -> None:
    running = shared_federation("plain", "clients").federation.begin(
        shared_federation("plain", "clients").next(), SHAPE
    )
    opener = SumOpener(running.plan, None)
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        opener.open_pools({})
    head = np.array([2, 0, 1])
    opener.open_counts(head, 3)
    assert opener.passing == (0,)
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        opener.open_counts(head, 3)
    pool = np.zeros(running.plan.numbers(2), "<u8").tobytes()
    shared = np.zeros(running.plan.numbers(1), "<u8").tobytes()
    with pytest.raises(RoundRefusedError, match="below-minimum"):
        opener.open_pools({1: shared, 2: pool, 3: pool})
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        opener.open_pools({1: shared})
    assert set(opener.open_pools({1: shared, 2: pool}).pools) == {0}


def test_masks_left_in_a_sum_are_noticed() -> None:
    running = shared_federation("masked", "clients").federation.begin(
        shared_federation("masked", "clients").next(), SHAPE
    )
    still = (
        np.random.default_rng(0)
        .integers(0, 2**64, running.plan.numbers(0), dtype=np.uint64)
        .astype("<u8")
        .tobytes()
    )
    with pytest.raises(RoundRefusedError, match="still-masked"):
        open_sum(running.plan, None, 0, still, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"minimum": 0},
        {"count_unit": 0},
        {"fewest": 9},
        {"cohort": ("stranger", "client-0000")},
        {"threshold": 2},
        {"degree": 3},
    ],
)
def test_rules_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    rounds = shared_federation("masked", "clients")
    with pytest.raises(SecureSumError):
        rounds.federation.begin(rounds.next(), SHAPE, **change)  # type: ignore[arg-type]


def test_shapes_that_cannot_be_are_refused() -> None:
    for arguments in (
        {"pools": 0, "width": 1},
        {"pools": 2, "width": 0},
        {"pools": 2, "width": 1, "head": 1},
        {"pools": 2, "width": 1, "counted": False},
    ):
        with pytest.raises(SecureSumError):
            BlockShape(**arguments)  # type: ignore[arg-type]
    with pytest.raises(SecureSumError):
        BlockVector.one_hot(SHAPE, 3, np.zeros(11, np.int64))
    for protection, key_holder in (
        ("magic", "clients"),
        ("bfv", "clients"),
        ("ckks", "clients"),
        ("bfv+masked", "server"),
    ):
        with pytest.raises(SecureSumError):
            make_federation(protection, key_holder).begin(0, SHAPE)
