"""Pair and self masks: cancel over survivors, recover from drop-outs, are bound to all that names
them, and are never used twice.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_sum.whole_blocks import mask

from secure_fl.crypto.key_streams import Slots, Terms
from secure_fl.crypto.shares import combine, split
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import from_bytes, to_bytes
from secure_fl.secure_sum.graph import Neighbourhoods, draw
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.masks import (
    SlotSum,
    UsedSeeds,
    pair_seeds,
    self_seeds,
    subtract,
    unmask_sum,
)

LAYOUTS = [FieldLayout(), FieldLayout.words()]


def private(number: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)


def seeds_between(
    one: int, other: int, blocks: int = 2, key: X25519PrivateKey | None = None, **changes: object
) -> list[bytes]:
    low, high = sorted((one, other))
    named = {"federation": "toy", "round_number": 3, "blocks": blocks, "low": low, "high": high}
    own, theirs = key or private(one), private(other).public_key()
    return pair_seeds(own, theirs, **named | changes)  # type: ignore[arg-type]


def recovered_seeds(dropped: int, graph: Neighbourhoods, survivors: set[int]) -> dict[int, bytes]:
    """What takes a dropped client's pair masks off block 1, from a key put together from shares."""
    shares = split(private(dropped).private_bytes_raw(), graph.threshold, graph.degree + 1)
    key = X25519PrivateKey.from_private_bytes(combine(shares[-graph.threshold :]))
    alive = [i for i in graph.neighbours[dropped] if i in survivors]
    return {i: seeds_between(dropped, i, key=key)[1] for i in alive}


@settings(max_examples=40)
@given(
    data=st.data(),
    clients=st.integers(2, 7),
    layout=st.sampled_from(LAYOUTS),
    degree=st.sampled_from([None, 2, 4]),
)
def test_what_is_opened_is_the_sum_of_the_survivors(
    data: st.DataObject, clients: int, layout: FieldLayout, degree: int | None
) -> None:
    """Any survivors, any values up to the field's edge, dense and sparse graphs; a dropped client's
    key comes back from its shares.
    """
    survivors = data.draw(st.sets(st.integers(0, clients - 1), min_size=1))
    width, edge = 5, layout.edge // clients
    row = st.lists(st.integers(-edge, edge), min_size=width, max_size=width)
    values = np.array(data.draw(st.lists(row, min_size=clients, max_size=clients)))
    graph = draw([bytes([i]) for i in range(clients)], degree=degree)
    own = [self_seeds(1)[0] for _ in range(clients)]
    total = SlotSum(layout.slots(width), layout.modulus)
    for i in survivors:
        slots = layout.pack(values[i])
        pairs = {j: seeds_between(i, j)[1] for j in graph.neighbours[i]}
        mask(slots, own=i, self_seed=own[i], pairs=pairs, modulus=layout.modulus, used=UsedSeeds())
        total.add(from_bytes(to_bytes(slots), layout.slots(width)))
    dropped = {d: recovered_seeds(d, graph, survivors) for d in set(range(clients)) - survivors}
    opened, seeds = total.total(), {i: own[i] for i in survivors}
    masks = unmask_sum(len(opened), self_seeds=seeds, dropped=dropped, modulus=layout.modulus)
    subtract(opened, masks, layout.modulus)
    assert layout.unpack(opened, width).tolist() == values[sorted(survivors)].sum(axis=0).tolist()


def test_masked_sums_are_the_integers_sums() -> None:
    """In both layouts: one codec, one sum."""
    values = np.random.default_rng(0).integers(-100_000, 100_000, (4, 100_001))
    opened = []
    for layout in LAYOUTS:
        masked = SlotSum(layout.slots(100_001), layout.modulus)
        own = [self_seeds(1)[0] for _ in range(4)]
        for i in range(4):
            slots = layout.pack(values[i])
            pairs = {j: seeds_between(i, j)[0] for j in range(4) if j != i}
            mask(
                slots,
                own=i,
                self_seed=own[i],
                pairs=pairs,
                modulus=layout.modulus,
                used=UsedSeeds(),
            )
            masked.add(slots)
        unmasked = masked.total()
        masks = unmask_sum(
            len(unmasked), self_seeds=dict(enumerate(own)), dropped={}, modulus=layout.modulus
        )
        subtract(unmasked, masks, layout.modulus)
        opened += [layout.unpack(unmasked, 100_001)]
    assert all(np.array_equal(found, values.sum(axis=0)) for found in opened)


def test_signs_are_the_designs() -> None:
    """+ for neighbours above, − for those below; and sgn(d − i) for a dropped d: other programs
    must agree, not only both our ends.
    """
    seeds: dict[bytes, int] = {b"self": 1000, b"above": 10, b"below": 1}

    def streams(vector: Slots, terms: Terms, modulus: int) -> None:
        for seed, sign in terms:
            vector += np.uint64(sign * seeds[seed] % modulus)

    slots = np.zeros(1, np.uint64)
    mask(
        slots,
        own=3,
        self_seed=b"self",
        pairs={5: b"above", 2: b"below"},
        modulus=2**64,
        used=UsedSeeds(),
        streams=streams,
    )
    assert slots.view(np.int64).tolist() == [1000 + 10 - 1]
    total = unmask_sum(
        1,
        self_seeds={3: b"self"},
        dropped={5: {3: b"above"}, 2: {3: b"below"}},
        modulus=2**64,
        streams=streams,
    )
    assert total.view(np.int64).tolist() == [1000 + 10 - 1]


def test_both_ends_make_one_seed() -> None:
    assert seeds_between(1, 4) == seeds_between(4, 1)


def test_seed_against_hkdf_written_out() -> None:
    """RFC 5869 with HMAC-SHA256: extract under zeros, two blocks of expand; the info with every
    length written out.
    """
    shared = private(1).exchange(private(2).public_key())

    def mac(key: bytes, text: bytes) -> bytes:
        digest = hmac.HMAC(key, hashes.SHA256())
        digest.update(text)
        return digest.finalize()

    info = (
        b"secure_fl/secure-sum/pair-seed/v2"
        + b"\0\0\0\x03toy"
        + (3).to_bytes(8, "big")
        + b"\0\0\0\0"
        + b"\0\0\0\x01"
        + b"\0\0\0\x02"
    )
    extracted = mac(bytes(32), shared)
    first = mac(extracted, info + b"\x01")
    assert seeds_between(1, 2) == [first, mac(extracted, first + info + b"\x02")]


def test_seeds_of_more_blocks_than_one_derivation_gives() -> None:
    few, many = seeds_between(1, 2, 255), seeds_between(1, 2, 300)
    assert many[:255] == few
    assert len(set(many)) == 300


def test_every_name_changes_the_seed() -> None:
    """Round, block, federation, pair and keys; no two of all these seeds are equal."""
    found = [
        *seeds_between(1, 2, 4),
        *seeds_between(1, 3, 4),
        *seeds_between(1, 2, 4, round_number=4),
        *seeds_between(1, 2, 4, federation="to"),
    ]
    found += [*seeds_between(1, 2, 4, low=0), *seeds_between(1, 2, 4, high=9)]
    assert len(set(found)) == len(found) == 24
    assert {len(seed) for seed in found} == {32}


@pytest.mark.parametrize(
    "changes",
    [
        {"low": 2, "high": 2},
        {"low": 5, "high": 2},
        {"low": -1},
        {"round_number": -1},
        {"blocks": 0},
        {"high": 2**32},
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(SecureSumError, match="low < high"):
        seeds_between(1, 2, **changes)  # type: ignore[arg-type]


def test_a_key_of_low_order_is_refused() -> None:
    """Such a key would make the shared secret known to everybody."""
    for raw in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(SecureSumError, match="low order"):
            pair_seeds(
                private(1),
                X25519PublicKey.from_public_bytes(raw),
                federation="toy",
                round_number=0,
                blocks=1,
                low=0,
                high=1,
            )


def test_a_seed_is_used_once() -> None:
    used, seeds = UsedSeeds(), self_seeds(5)
    settings = {"own": 0, "modulus": 2**64, "used": used}
    slots = np.zeros(4, np.uint64)
    mask(slots, self_seed=seeds[0], pairs={1: seeds[1]}, **settings)  # type: ignore[arg-type]
    before = slots.copy()
    for self_seed, pair in (
        (seeds[0], seeds[2]),
        (seeds[2], seeds[1]),
        (seeds[1], seeds[3]),
        (seeds[4], seeds[4]),
    ):
        with pytest.raises(SecureSumError, match="used once") as caught:
            mask(slots, self_seed=self_seed, pairs={1: pair}, **settings)  # type: ignore[arg-type]
        assert seeds[0].hex() not in str(caught.value)
        assert repr(seeds[0]) not in str(caught.value)
    assert np.array_equal(slots, before)
    mask(slots, self_seed=seeds[2], pairs={1: seeds[3]}, **settings)  # type: ignore[arg-type]


def test_self_seeds_are_fresh() -> None:
    drawn = [seed for _ in range(50) for seed in self_seeds(4)]
    assert len(set(drawn)) == 200
    assert {len(seed) for seed in drawn} == {32}


def test_clients_without_neighbours_are_refused() -> None:
    for pairs in ({}, {0: bytes(32)}):
        with pytest.raises(SecureSumError, match="neighbours"):
            mask(
                np.zeros(4, np.uint64),
                own=0,
                self_seed=bytes(32),
                pairs=pairs,
                modulus=2**64,
                used=UsedSeeds(),
            )


def test_nobody_is_both_survivor_and_dropped() -> None:
    a, b, c = self_seeds(3)
    for own, dropped in (({}, {}), ({0: a, 1: b}, {1: {0: c}}), ({0: a}, {2: {1: b}})):
        with pytest.raises(SecureSumError, match="disjoint"):
            unmask_sum(4, self_seeds=own, dropped=dropped, modulus=2**64)


def test_each_survivor_and_each_pair_counts() -> None:
    """M without any one of its terms leaves noise, not the sum."""
    own, pair = self_seeds(3), self_seeds(3)
    pairs = dict(zip(combinations(range(3), 2), pair, strict=True))
    values = np.arange(8, dtype=np.int64)
    layout = FieldLayout.words()
    total = SlotSum(layout.slots(8), layout.modulus)
    for i in (0, 1):
        slots = layout.pack(values)
        mine = {j: pairs[min(i, j), max(i, j)] for j in range(3) if j != i}
        mask(slots, own=i, self_seed=own[i], pairs=mine, modulus=layout.modulus, used=UsedSeeds())
        total.add(slots)

    def opened(self_masks: dict[int, bytes], dropped: dict[int, dict[int, bytes]]) -> list[int]:
        left = total.total()
        subtract(
            left,
            unmask_sum(len(left), self_seeds=self_masks, dropped=dropped, modulus=layout.modulus),
            layout.modulus,
        )
        return layout.unpack(left, 8).tolist()

    complete = {2: {0: pairs[0, 2], 1: pairs[1, 2]}}
    assert opened({0: own[0], 1: own[1]}, complete) == (2 * values).tolist()
    for self_masks, dropped in (
        ({0: own[0], 1: own[2]}, complete),
        ({0: own[0], 1: own[1]}, {2: {0: pairs[0, 2]}}),
        ({0: own[0], 1: own[1]}, {}),
    ):
        assert opened(self_masks, dropped) != (2 * values).tolist()


def test_sums_refuse_what_does_not_fit() -> None:
    layout = FieldLayout()
    total = SlotSum(4, layout.modulus)
    for upload in (
        np.zeros(3, np.uint64),
        np.zeros(4, np.int64),
        np.full(4, layout.modulus, np.uint64),
    ):
        with pytest.raises(SecureSumError):
            total.add(upload)
    assert total.count == 0
    with pytest.raises(SecureSumError, match="another length"):
        subtract(np.zeros(4, np.uint64), np.zeros(5, np.uint64), layout.modulus)
    with pytest.raises(SecureSumError, match="another length"):
        from_bytes(bytes(33), 4)
