"""Coins at given places: one place, one number, whoever else is there; and the numbers are those
of AES-256.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from torch import Tensor

from secure_fl.coins import Coins, Draws
from secure_fl.errors import TrainingError

CPU = torch.device("cpu")


def draws(examples: list[int] | range, step: int = 3, seed: int = 1) -> Draws:
    return Coins.public(seed).at(step, torch.tensor(list(examples)))


KINDS = {
    "words": lambda d: torch.from_numpy(d.words(7, 2).astype(np.int64)),
    "uniform": lambda d: d.uniform(5, 2),
    "normal": lambda d: d.normal(5, 2),
    "kept": lambda d: d.kept(70, 0.4, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_its_numbers_whoever_else_is_there(kind: str) -> None:
    make = KINDS[kind]
    everybody, some = make(draws(range(20))), [17, 3, 4, 11]
    assert torch.equal(make(draws(some)), everybody[some])
    assert torch.equal(make(draws(range(20))[torch.tensor(some)]), everybody[some])
    for other in (draws(range(20), step=4), draws(range(20), seed=2), draws(range(20)).of_view(1)):
        assert not torch.equal(make(other), everybody)


def test_a_generator_in_order_would_be_found() -> None:
    """The planted fault: numbers handed out row by row, as torch's generator does."""

    def in_order(examples: list[int]) -> Tensor:
        return torch.rand(len(examples), 5, generator=torch.Generator().manual_seed(0))

    assert not torch.equal(in_order([17, 3]), in_order(list(range(20)))[[17, 3]])


def test_numbers_are_the_counter_mode_s_own() -> None:
    """A block is the encryption of its place, as a keystream read from there would begin."""
    key, place = bytes(range(32)), np.array([9, 5, 1 << 16 | 2, 1], "<u4")
    found = Coins(key).at(9, torch.tensor([5])).of_view(1).words(8, 2)[0, 4:]
    keystream = Cipher(AES(key), CTR(place.tobytes())).encryptor().update(bytes(16))
    assert found.tobytes() == keystream


def test_no_two_places_share_their_numbers() -> None:
    seen = [
        draws([example], step).of_view(view).words(8, use)
        for example in (0, 1)
        for step in (0, 1)
        for view in (0, 1)
        for use in (0, 1)
    ]
    shared = draws([0, 1], 0).shared().words(8, 0)
    assert len({row.tobytes() for row in [*seen, shared]}) == 17
    assert torch.equal(draws([0, 1]).shared().uniform(3, 0), draws([5]).shared().uniform(3, 0))


def test_numbers_follow_their_laws() -> None:
    """400,000 each; bounds are 5 standard deviations of the estimates."""
    d = draws(range(400))
    uniform, normal, kept = d.uniform(1000, 1), d.normal(1001, 2).double(), d.kept(1000, 0.3, 3)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert abs(float(uniform.double().mean()) - 0.5) < 5 * (1 / 12 / 4e5) ** 0.5
    assert abs(float(normal.mean())) < 5 * (1 / 4e5) ** 0.5
    assert abs(float(normal.square().mean()) - 1) < 5 * (2 / 4e5) ** 0.5
    assert abs(float((normal**4).mean()) - 3) < 5 * (96 / 4e5) ** 0.5
    assert abs(float(kept.double().mean()) - 0.3) < 5 * (0.21 / 4e5) ** 0.5
    assert d.kept(3, 1.0, 3).all()
    assert not d.kept(3, 0.0, 3).any()
    assert d[:0].kept(3, 0.5, 3).shape == (0, 3)


def test_torch_s_generator_gets_all_of_its_state_from_the_coins_and_is_put_back() -> None:
    """The stream is MT19937's with these 624 words: numpy's of the same state agrees."""
    d = draws(range(3))
    words, before = d.words(626, 9)[1], torch.get_rng_state()
    with d.torch_generators(CPU, 9) as begin:
        begin(1)
        found = torch.rand(5)
        begin(0)
        other = torch.rand(5)
        begin(1)
        assert torch.equal(torch.rand(5), found)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(found, other)
    twister = np.random.RandomState()
    twister.set_state(("MT19937", words[:624], 624))
    expected = (twister.randint(0, 2**32, 5, dtype=np.uint32) & 0xFFFFFF) * 2.0**-24
    assert found.tolist() == expected.tolist()


def test_what_has_no_place_is_refused() -> None:
    for call in (
        lambda: Coins(bytes(16)),
        lambda: Coins.public(0).at(-1, torch.tensor([0])),
        lambda: Coins.public(0).at(2**32, torch.tensor([0])),
        lambda: Coins.public(0).at(0, torch.tensor([-1])),
        lambda: Coins.public(0).at(0, torch.tensor([2**32 - 1])),
    ):
        with pytest.raises(TrainingError):
            call()


def test_keys_are_not_shown() -> None:
    coins = Coins(b"\x2a" * 32)
    assert "2a" not in repr(coins)
    assert "*" not in repr(coins.at(0, torch.tensor([1])))
