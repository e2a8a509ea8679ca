"""The grid: no sum overflows a field, nothing passes its bound, and blocks show no choice."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from math import sqrt
from operator import add

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secure_fl.crypto.key_streams import reduce as reduced
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.fixed_point import Codec, rounded, square_of
from secure_fl.secure_sum.grid import Blocks, Frame, Grid
from secure_fl.secure_sum.layout import FieldLayout

LAYOUT = FieldLayout()
LIMITS = st.sampled_from([1e-3, 0.7, 1.0, 250.0])


@given(clients=st.integers(1, 32_767), limit=LIMITS)
def test_the_overflow_rule_holds_and_the_next_grid_breaks_it(clients: int, limit: float) -> None:
    codec = Codec.finest(clients, limit, LAYOUT)
    assert clients * codec.bound <= LAYOUT.edge < clients * (codec.bound + 1)
    assert int(limit * codec.scale) <= codec.bound  # the most steps that a weight may have
    assert codec.scale * limit > codec.bound * (1 - 2.0**-22)


@given(
    st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=50),
    st.sampled_from([1, 7, 1000]),
    st.sampled_from([1e-4, 1.0, 33.3]),
)
def test_every_coordinate_is_cut_and_shortened_exactly(
    values: list[float], clients: int, limit: float
) -> None:
    codec = Codec.finest(clients, limit, LAYOUT)
    vector, made = torch.tensor(values) * limit, torch.zeros(len(values), dtype=torch.int64)
    codec.quantise(vector, made)
    for x, q in zip(vector.tolist(), made.tolist(), strict=True):
        exact = int(Fraction(x) * Fraction(codec.scale))
        assert q == max(-codec.bound, min(codec.bound, exact))


@pytest.mark.parametrize("layout", [FieldLayout(), FieldLayout.words()])
@pytest.mark.parametrize("seed", range(4))
def test_full_sums_at_the_limit_are_exact_in_their_slots(layout: FieldLayout, seed: int) -> None:
    """All clients at ±B in every coordinate, the worst case that the rule allows."""
    grid = Grid(37, 0, 11, 1, 1.0, False, layout)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], 11) if seed else np.ones(11)
    vector = grid.blocks(torch.from_numpy(1e3 * signs), 0).pools[0]
    slots = np.zeros(layout.slots(11), np.uint64)
    for _ in range(37):
        slots += layout.pack(vector.numpy())
        reduced(slots, layout.modulus)
    opened = layout.unpack(slots, 11)
    assert np.array_equal(opened, 37 * vector.numpy())
    assert layout.edge - 37 < np.abs(opened).max() <= layout.edge


@pytest.mark.parametrize(
    ("settings", "field", "remedy"),
    [
        ({"clients": 0}, "clients", "1 to 32767 clients"),
        ({"clients": 2**15}, "clients", "1 to 32767 clients"),
        ({"limit": 0.0}, "limit", "between"),
        ({"limit": float("nan")}, "limit", "between"),
        ({"limit": float("inf")}, "limit", "between"),
    ],
)
def test_what_could_overflow_is_refused(
    settings: dict[str, float], field: str, remedy: str
) -> None:
    with pytest.raises(SecureSumError, match=remedy) as caught:
        Codec.finest(**{"clients": 8, "limit": 1.0, "layout": LAYOUT, **settings})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_what_is_no_update_is_refused_and_no_value_is_shown() -> None:
    grid = Grid(4, 2, 3, 2, 1.0, False, LAYOUT)
    for bad in (float("nan"), float("inf"), -float("inf")):
        update = torch.full((5,), 0.625)
        update[3] = bad
        with pytest.raises(SecureSumError, match="not finite") as caught:
            grid.blocks(update, 1)
        assert "0.625" not in str(caught.value)
    for shape in ((4,), (6,), (5, 1)):
        with pytest.raises(SecureSumError, match="not one update"):
            grid.blocks(torch.zeros(shape), 1)
    for pool in (2, -1, 77):
        with pytest.raises(SecureSumError, match="no such pool") as caught:
            grid.blocks(torch.zeros(5), pool)
        assert str(pool) not in str(caught.value).replace("0..1", "")


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.sampled_from([0, 5]))
def test_a_vector_has_one_shape_whatever_was_chosen(
    pools: int, shared: int, pooled: int, bit: int
) -> None:
    frame, says = Frame(pools, shared, pooled, unit=7, bit=bit), (True if bit else None)
    made = [frame.blank(pool, says) for pool in range(pools)]
    for pool, blocks in enumerate(made):
        head = [7 * (each == pool) for each in range(pools)] * (pools > 1) + [5] * (bit > 0)
        assert blocks.head.tolist() == head
        assert blocks.shared.tolist() == [0] * shared
        assert blocks.pools.tolist() == [[0] * pooled] * pools
        flat = torch.arange(frame.fields)
        back = frame.cut(flat)
        assert torch.equal(torch.cat([back.head, back.shared, back.pools.flatten()]), flat)
        shapes = [[each.shape for each in vars(found).values()] for found in (back, blocks)]
        assert shapes[0] == shapes[1]
    counted = frame.counted(reduce(add, made).head, pools, 1)
    assert counted.counts.tolist() == [1.0] * pools
    assert counted.passing.all()
    assert counted.inside == (1.0 if bit else None)
    assert not frame.counted(reduce(add, made).head, pools, pools + 1).passing.any()
    with pytest.raises(SecureSumError, match="bit"):
        frame.blank(0, None if bit else True)


@given(st.data())
def test_the_frame_of_a_grid_is_known_before_any_client_answers(data: st.DataObject) -> None:
    shared, pooled = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 4))
    wide = tuple(sorted(data.draw(st.sets(st.integers(0, shared + pooled - 1)))))
    weighted, pools = data.draw(st.booleans()), data.draw(st.integers(1, 3))
    grid = Grid(9, shared, pooled, pools, 1.0, weighted, LAYOUT, wide, 1e6)
    made = grid.blocks(torch.zeros(shared + pooled), 0)
    found = (len(made.head), len(made.shared), tuple(made.pools.shape))
    assert found == (grid.frame.head, grid.frame.shared, (pools, grid.frame.pooled))


def test_closed_pools_are_not_read_and_small_ones_divide_by_the_minimum() -> None:
    grid = Grid(9, 1, 1, 2, 1.0, False, LAYOUT)
    steps = torch.tensor([[90], [777]])
    total = Blocks(torch.tensor([3, 2]), torch.tensor([50]), steps)
    shared, pools = grid.means(total, 5, 3)
    assert shared.tolist() == pytest.approx([10 / grid.codec.scale])
    assert pools.flatten().tolist() == pytest.approx([30 / grid.codec.scale, 0.0])
    assert grid.heard(total, 5, 3)[1].tolist() == [True, False]


def test_rounding_toward_zero_never_lengthens() -> None:
    steps = torch.tensor([2.9, -2.9, 0.999, -0.0, 5.0], dtype=torch.float64)
    assert rounded(steps).tolist() == [2, -2, 0, 0, 5]


def test_random_rounding_is_unbiased_on_its_condition() -> None:
    coins = np.random.default_rng(0).random
    steps = torch.full((400,), 0.3, dtype=torch.float64)
    draws = torch.stack([rounded(steps, 10**6, coins) for _ in range(500)]).double()
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert abs(float(draws.mean()) - 0.3) < 5 * 0.5 / sqrt(500 * 400)
    tight = [square_of(rounded(steps, 125, coins)) for _ in range(300)]
    assert max(tight) <= 125
    assert len(set(tight)) > 5


def test_draws_that_stay_too_long_fall_back_to_zero() -> None:
    asked = []

    def coins(count: int) -> NDArray[np.float64]:
        asked.append(count)
        return np.full(count, 0.9)

    steps = torch.tensor([0.5, 1.5, -0.5], dtype=torch.float64)
    assert rounded(steps, 1, coins).tolist() == [0, 1, 0]
    assert asked == [3] * 20
    assert rounded(steps, 5, coins).tolist() == [1, 2, 0]
