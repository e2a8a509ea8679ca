"""The experimental additive pad: sums are exact, over the survivors alone, and what does not fit is
refused.
"""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from experimental.pads import draw, fixed, make_plan, padded_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from secure_sum.round_helpers import make_federation

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.experimental import rlwe_ring
from secure_fl.experimental.rlwe_pad import (
    PAD_LAYOUT,
    ExperimentalWarning,
    PadPlan,
    PadSum,
    RlwePad,
    secrets_shape,
)
from secure_fl.experimental.rlwe_ring import DEGREE, WIDEST_SHORT, to_bytes
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.grid import Grid
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.noise_bounds import noise_tail_log2

pytestmark = pytest.mark.filterwarnings(
    "ignore::secure_fl.experimental.rlwe_pad.ExperimentalWarning"
)

LOWEST = np.iinfo(np.int64).min
Integers = NDArray[np.int64]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sums_are_exact_at_the_edges_and_over_survivors_only(data: st.DataObject) -> None:
    clients = data.draw(st.integers(3, 20))
    plan = make_plan(data.draw(st.sampled_from([1, 2, 3, 4093, 4094, 4095, 4097, 9000])), clients)
    edges = [-plan.bound, plan.bound, 1 - plan.bound, -1, 0, 1]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    one_sided = data.draw(st.sampled_from([None, plan.bound, -plan.bound]))
    values = {f"c{k}": rng.choice(edges, plan.fields).astype(np.int64) for k in range(clients)}
    if one_sided is not None:
        values = {name: np.full(plan.fields, one_sided) for name in values}
    survivors = sorted(values)[: data.draw(st.integers(3, clients))]
    expected = np.sum([values[name] for name in survivors], axis=0)
    assert np.array_equal(padded_sum(plan, values, survivors), expected)


def test_many_clients_are_summed_exactly() -> None:
    plan = make_plan(8190, 196)
    rng = np.random.default_rng(0)
    values = {f"c{k}": rng.integers(-plan.bound, plan.bound + 1, plan.fields) for k in range(196)}
    assert np.array_equal(
        padded_sum(plan, values, list(values)), np.sum(list(values.values()), axis=0)
    )


def test_a_grid_feeds_the_pad() -> None:
    grid = Grid(6, 0, 500, 1, 1.0, False, PAD_LAYOUT)
    plan = make_plan(500, 6)
    assert grid.codec.bound == plan.bound
    updates = np.random.default_rng(1).uniform(-1, 1, (6, 500)).astype(np.float32)
    vectors = [grid.blocks(update, 0).pools[0].numpy() for update in torch.from_numpy(updates)]
    values = {f"c{k}": vector for k, vector in enumerate(vectors)}
    found = grid.codec.dequantise(torch.from_numpy(padded_sum(plan, values, list(values))))
    np.testing.assert_allclose(found, updates.sum(0), atol=6 / grid.codec.scale)


def test_a_round_of_pads_opens_sums_of_secrets_and_nothing_else() -> None:
    """Two pools, each with a secret of its own: one client drops out, one pool stays below the
    minimum and its pad stays on.
    """
    federation, names = make_federation("masked", clients=6), [f"client-{k:04d}" for k in range(6)]
    plans = [PadPlan("embedded", 0, pool, 300, 6, colluders=1) for pool in range(2)]
    choices = {name: int(name == "client-0005") for name in names}
    rng, shape = np.random.default_rng(4), secrets_shape(2)
    values = {
        name: [rng.integers(-900, 900, 300) * (choices[name] == pool) for pool in range(2)]
        for name in names
    }
    pads = {name: [RlwePad(plan, UsedSeeds()) for plan in plans] for name in names}
    running = federation.begin(
        0, shape, kills={"client-0002": Phase.UPLOAD}, minimum=2, **plans[0].rules
    )
    sums = [PadSum(plan) for plan in plans]
    for name in names:
        uploads = [pad.protect(row) for pad, row in zip(pads[name], values[name], strict=True)]
        if running.silent(name, Phase.UPLOAD):
            continue
        head = np.eye(2, dtype=np.int64)[choices[name]]
        vector = BlockVector(head, [pad.secret for pad in pads[name]])
        assert running.add(running.protect(name, vector)) is None
        for total, upload in zip(sums, uploads, strict=True):
            total.add(name, upload)
    outcome = running.open()
    survivors, opened = outcome.survivors, outcome.opened.pools[0]
    assert "client-0002" not in survivors
    assert outcome.opened.passing == (0,)
    assert np.array_equal(opened, np.sum([pads[name][0].secret for name in survivors], axis=0))
    expected = np.sum([values[name][0] for name in survivors], axis=0)
    assert np.array_equal(sums[0].open(survivors, opened), expected)
    with pytest.raises(RefusedError, match="out-of-range"):
        sums[1].open(survivors, opened)


def noisy_sum(plan: PadPlan, value: int, noise: int) -> Integers:
    """What opens where the clients' noise sums to `noise` in every coefficient, under pads of
    zero secrets.
    """
    total, values = PadSum(plan), np.full(plan.fields, value)
    for client in range(plan.clients):
        share = noise // plan.clients + (client < noise % plan.clients)
        slots = np.zeros((plan.elements, DEGREE), np.int64)
        slots.reshape(-1)[: PAD_LAYOUT.slots(plan.fields)] = (
            PAD_LAYOUT.pack(values).view(np.int64) << 10
        )
        total.add(f"c{client}", to_bytes(rlwe_ring.reduced(slots + share)))
    return total.open([f"c{k}" for k in range(plan.clients)], np.zeros(DEGREE, np.int64))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("clients", "noise"), [(3, 61), (15, 133), (226, 510)])
def test_the_largest_noise_is_rounded_off_and_more_is_refused(
    clients: int, noise: int, sign: int
) -> None:
    """At the edges of fields and counts, where a carry would show; 226 clients are the most for
    one element.
    """
    plan = make_plan(4094, clients)
    assert plan.noise == noise
    for value in (plan.bound, -plan.bound):
        assert np.array_equal(noisy_sum(plan, value, sign * noise), np.full(4094, value * clients))
    with pytest.raises(RefusedError, match="noise beyond"):
        noisy_sum(plan, 0, sign * (noise + 1))


def test_the_margin_is_what_it_says() -> None:
    """Fifteen clients cannot reach half of the noise's room; beyond that, it is passed with at most
    2^-40 in the whole vector.
    """
    assert 15 * WIDEST_SHORT < 512
    for plan in (make_plan(4094, 226), make_plan(1_000_000, 196), make_plan(11_000_000, 185)):
        assert noise_tail_log2(512, 4 * plan.clients**0.5) + log2(plan.elements * DEGREE) <= -40
    assert 250 <= (512 / 8 / 4) ** 2 < 257


def test_binomial_tails_lie_below_the_bound_that_is_charged() -> None:
    for clients in (16, 100, 196, 226):
        exact = log2(2 * binom.sf(32 * clients + 511, 64 * clients, 0.5) + 1e-300)
        assert exact <= noise_tail_log2(512, 4 * clients**0.5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"clients": 251}, "pad.clients"),
        ({"clients": 227}, "pad.clients"),
        ({"clients": 197, "fields": 1_000_000}, "pad.clients"),
        ({"clients": 2}, "pad.clients"),
        ({"clients": 5, "colluders": 3}, "pad.clients"),
        ({"colluders": -1}, "pad.clients"),
        ({"fields": 0}, "pad.fields"),
        ({"block": -1}, "pad.block"),
        ({"block": 2**32}, "pad.block"),
    ],
)
def test_wrong_plans_are_refused(arguments: dict[str, int], field: str) -> None:
    with pytest.raises(SecureSumError) as caught:
        make_plan(**{"fields": 300, "clients": 4, **arguments})
    assert caught.value.field == field
    assert caught.value.remedy
    assert make_plan(4094, 226).elements == 1


def test_a_pad_is_used_once() -> None:
    plan, used = make_plan(), UsedSeeds()
    pad, values = RlwePad(plan, used, randomness=fixed(1)), np.zeros(300, np.int64)
    pad.protect(values)
    for again in (
        pad,
        RlwePad(plan, used, randomness=fixed(1)),
        RlwePad(make_plan(block=1), used, randomness=fixed(1)),
    ):
        with pytest.raises(SecureSumError, match="used once"):
            again.protect(values)
    assert not np.array_equal(RlwePad(plan, used).secret, RlwePad(plan, used).secret)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(299, np.int64),
        np.zeros(300),
        np.full(300, 131_072),
        np.full(300, -131_072),
        np.full(300, LOWEST),
    ],
)
def test_vectors_that_do_not_fit_are_refused_before_the_pad_is_spent(
    values: NDArray[np.generic],
) -> None:
    pad = draw(make_plan(), 1)
    with pytest.raises(SecureSumError, match="integers"):
        pad.protect(values)  # type: ignore[arg-type]
    pad.protect(np.zeros(300, np.int64))


def test_only_the_sum_of_the_right_secrets_opens() -> None:
    plan = make_plan(300, 5, colluders=1)
    pads = {f"c{k}": draw(plan, k) for k in range(5)}
    total = PadSum(plan)
    for name, pad in pads.items():
        total.add(name, pad.protect(np.full(300, 7)))
    with pytest.raises(RefusedError, match="duplicate"):
        total.add("c0", bytes(plan.upload_bytes))
    with pytest.raises(SecureSumError, match="more clients than planned"):
        total.add("c9", bytes(plan.upload_bytes))
    names, secrets = list(pads), np.sum([pad.secret for pad in pads.values()], axis=0)
    with pytest.raises(SecureSumError, match="whose secrets were opened"):
        total.open(names[1:], secrets - pads["c0"].secret)
    for wrong in (
        secrets.astype(np.int32),
        secrets[:-1],
        np.full(DEGREE, 161),
        np.full(DEGREE, LOWEST),
    ):
        with pytest.raises(SecureSumError, match="no sum of so many secrets"):
            total.open(names, wrong)
    for left in (secrets - pads["c0"].secret, secrets + np.eye(1, DEGREE, dtype=np.int64)[0]):
        with pytest.raises(RefusedError, match="out-of-range"):
            total.open(names, left)
    assert np.array_equal(total.open(names, secrets), np.full(300, 35))
    few = PadSum(plan)
    for name in names[:3]:
        few.add(name, bytes(plan.upload_bytes))
    with pytest.raises(SecureSumError, match="4 or more"):
        few.open(names[:3], np.zeros(DEGREE, np.int64))


def test_a_sum_beyond_its_clients_is_refused() -> None:
    """An upload whose upper field is at the edge, without any pad."""
    plan = make_plan(300, 3)
    total = PadSum(plan)
    shifted = np.zeros((1, DEGREE), np.uint64)
    shifted[0, 0] = PAD_LAYOUT.edge << 30
    for name, words in (
        ("a", shifted),
        ("b", shifted * np.uint64(0)),
        ("c", shifted * np.uint64(0)),
    ):
        total.add(name, to_bytes(words))
    assert plan.bound * 3 < PAD_LAYOUT.edge
    with pytest.raises(RefusedError, match="beyond what its clients"):
        total.open(["a", "b", "c"], np.zeros(DEGREE, np.int64))


def test_public_elements_are_of_one_block_and_round_alone() -> None:
    plans = [
        PadPlan(name, number, block, 300, 4)
        for name in ("a", "b")
        for number in (0, 1)
        for block in (0, 1)
    ]
    assert len({plan.public_seed for plan in plans}) == len(plans)
    assert plans[0].public_seed == PadPlan("a", 0, 0, 999, 9).public_seed


def test_it_says_that_it_is_an_experiment() -> None:
    with pytest.warns(ExperimentalWarning, match="experimental"):
        draw(make_plan(), 0)
    with pytest.warns(ExperimentalWarning, match="bfv\\+masked"):
        PadSum(make_plan())
    assert "secret" not in repr(make_plan())
