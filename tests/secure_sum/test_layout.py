"""Fields in slots: exact to every edge, refused beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.key_streams import RUN, WORDS, reduce
from secure_fl.errors import SecureSumError
from secure_fl.he.parameters import BATCHING_PRIME
from secure_fl.secure_sum.layout import FieldLayout

LAYOUTS = [
    FieldLayout(),
    FieldLayout.words(),
    FieldLayout(modulus=WORDS),
    FieldLayout(bits=21, fields_per_slot=3, modulus=WORDS),
    FieldLayout(bits=13, fields_per_slot=3),
    FieldLayout.whole(),
    FieldLayout.whole(WORDS),
]
EDGE = 2**19 - 1


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_round_trip_with_values_at_every_edge(layout: FieldLayout, data: st.DataObject) -> None:
    edges = st.sampled_from([-layout.edge, 1 - layout.edge, -1, 0, 1, layout.edge - 1, layout.edge])
    values = data.draw(st.lists(edges | st.integers(-layout.edge, layout.edge), max_size=40))
    packed = layout.pack(np.array(values, np.int64))
    assert packed.dtype == np.uint64
    assert len(packed) == layout.slots(len(values)) == -(-len(values) // layout.fields_per_slot)
    assert not len(packed) or int(packed.max()) < layout.modulus
    assert layout.unpack(packed, len(values)).tolist() == values


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_sums_of_packed_vectors_are_sums_of_fields(
    layout: FieldLayout, data: st.DataObject
) -> None:
    """Any number of clients and signs, partial sums beyond nothing but the final one's edge."""
    clients = data.draw(st.integers(1, 6))
    width = data.draw(st.integers(1, 7))
    vectors = np.array(
        data.draw(
            st.lists(
                st.lists(st.integers(-layout.edge, layout.edge), min_size=width, max_size=width),
                min_size=clients,
                max_size=clients,
            )
        )
    )
    truth = vectors.sum(axis=0)
    if np.abs(truth).max() > layout.edge:
        return
    total = layout.pack(vectors[0])
    for vector in vectors[1:]:
        total = total + layout.pack(vector)
        reduce(total, layout.modulus)
    assert layout.unpack(total, width).tolist() == truth.tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [3 * RUN, 3 * RUN + 1, 3 * RUN + 2, RUN - 1])
def test_long_vectors_in_runs(layout: FieldLayout, width: int) -> None:
    values = np.random.default_rng(width).integers(-layout.edge, layout.edge + 1, width)
    assert np.array_equal(layout.unpack(layout.pack(values), width), values)


def test_equation_of_the_design() -> None:
    """v = a + 2^20·b mod t, with b in the second half of the vector."""
    for a, b in ((EDGE, EDGE), (-EDGE, -EDGE), (-EDGE, EDGE), (5, -7), (-1, 0)):
        assert int(FieldLayout().pack(np.array([a, b]))[0]) == (a + 2**20 * b) % BATCHING_PRIME


def test_the_prime_is_bfvs() -> None:
    assert BATCHING_PRIME % 8192 == 1
    assert BATCHING_PRIME.bit_length() == 40
    sealapi = pytest.importorskip("tenseal.sealapi")
    assert sealapi.PlainModulus.Batching(4096, 40).value() == BATCHING_PRIME


@pytest.mark.parametrize("value", [EDGE + 1, -EDGE - 1, 2**62])
def test_beyond_the_edge_is_refused(value: int) -> None:
    with pytest.raises(SecureSumError, match="beyond its field") as caught:
        FieldLayout().pack(np.array([0, value]))
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 21},
        {"fields_per_slot": 3},
        {"bits": 22, "fields_per_slot": 3, "modulus": WORDS},
        {"bits": 1},
        {"bits": 40, "fields_per_slot": 1},
        {"fields_per_slot": 0},
        {"modulus": 97},
        {"modulus": 2**41 + 1},
    ],
)
def test_fields_that_do_not_fit_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(SecureSumError):
        FieldLayout(**settings)


def test_odd_input_is_refused() -> None:
    layout = FieldLayout()
    for values in (np.zeros((2, 2), np.int64), np.zeros(3), np.zeros(3, np.uint64)):
        with pytest.raises(SecureSumError, match="signed integers"):
            layout.pack(values)
    with pytest.raises(SecureSumError, match="number of slots"):
        layout.unpack(np.zeros(3, np.uint64), 4)
    with pytest.raises(SecureSumError, match="below the modulus"):
        layout.unpack(np.full(1, BATCHING_PRIME, np.uint64), 2)
    with pytest.raises(SecureSumError, match="uint64"):
        layout.unpack(np.zeros(2, np.int64), 4)


def test_a_wrapped_field_damages_its_slot_only() -> None:
    """One step beyond the edge carries into the neighbour field, and both are wrong; the slots
    beside it are right.
    """
    layout = FieldLayout()
    values = np.array([EDGE, 3, 4, 5])
    total = layout.pack(values) + layout.pack(np.array([1, 0, 0, 0]))
    opened = layout.unpack(total, 4)
    assert opened.tolist() == [-EDGE - 1, 3, 5, 5]


def test_packing_by_runs_is_undone() -> None:
    values = np.random.default_rng(0).integers(-EDGE, EDGE + 1, 3 * RUN + 5)
    for layout in (FieldLayout(), FieldLayout.words()):
        assert np.array_equal(layout.unpack(layout.pack(values), len(values)), values)
