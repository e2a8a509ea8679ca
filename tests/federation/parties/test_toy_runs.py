"""A whole federation over bytes, under every protection."""

from __future__ import annotations

import pytest
import torch
from federation.parties.toy_federation import expected, make

KINDS = [
    ("plain", "clients"),
    ("masked", "clients"),
    ("bfv+masked", "clients"),
    ("bfv+masked", "authority"),
]


@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_everybody_comes_to_the_models_that_the_sums_make(protection: str, key_holder: str) -> None:
    made = make(4, protection, key_holder, rounds=3)
    made.run()
    assert made.server.failed is None
    assert all(client.over for client in made.clients)
    for pools in made.pools():
        torch.testing.assert_close(pools, expected(range(4), 3))
    assert len({client.state.digest for client in made.clients if client.state}) == 1
