"""The layers together: packed by the codec, masked, encrypted, summed, unmasked without a key,
decrypted: the plain sum.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from he.helpers import parties
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.crypto.key_streams import add_streams, expand
from secure_fl.he.parameters import BATCHING_PRIME, KeyHolder
from secure_fl.secure_sum import layout as layouts
from secure_fl.secure_sum.layout import FieldLayout

LAYOUT = FieldLayout()
PARTIES = {holder: parties(holder) for holder in ("clients", "authority")}


def test_codec_and_encryption_share_one_modulus() -> None:
    assert LAYOUT.modulus == layouts.BATCHING_PRIME == BATCHING_PRIME


@pytest.mark.parametrize("holder", ["clients", "authority"])
@settings(max_examples=12)
@given(
    clients=st.integers(1, 6),
    fields=st.sampled_from([1, 2, 7, 8192, 8193, 9000]),
    seed=st.integers(0, 2**32),
)
def test_equal_to_the_plain_sum(holder: KeyHolder, clients: int, fields: int, seed: int) -> None:
    rng, party = np.random.default_rng(seed), PARTIES[holder]
    share = LAYOUT.edge // clients
    vectors = rng.choice([-share, -1, 0, 1, share], (clients, fields)).astype(np.int64)
    slots = LAYOUT.slots(fields)
    total, masks = party.server.new_sum(slots), np.zeros(slots, np.uint64)
    for vector in vectors:
        key, masked = os.urandom(32), LAYOUT.pack(vector)
        add_streams(masked, [(key, 1)], LAYOUT.modulus)
        party.server.add(total, party.client.encrypt(masked))
        masks = (masks + expand(key, slots, LAYOUT.modulus)) % np.uint64(LAYOUT.modulus)
    opened = LAYOUT.unpack(
        party.holder.decrypt(party.server.subtract_plain(total, masks), slots), fields
    )
    np.testing.assert_array_equal(opened, vectors.sum(0))
