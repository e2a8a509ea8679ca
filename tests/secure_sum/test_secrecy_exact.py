"""Secrecy test (a): all views under all seeds. Inputs with equal opened sums give the same
distribution, exactly.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from secure_sum.faults import FAULTS, Fault, ToyRound, zero_sum_change

from secure_fl.crypto.key_streams import Slots, Terms


class AllSeeds:
    """Each slot is one assignment of values to every seed: a single call of the shipped code runs
    all of them.
    """

    def __init__(self, seeds: list[bytes], modulus: int) -> None:
        self.count = modulus ** len(seeds)
        place = np.arange(self.count, dtype=np.uint64)
        self.values = {
            seed: place // np.uint64(modulus**k) % np.uint64(modulus)
            for k, seed in enumerate(seeds)
        }

    def streams(self, vector: Slots, terms: Terms, modulus: int) -> None:
        for seed, sign in terms:
            vector += self.values[seed] if sign > 0 else np.uint64(modulus) - self.values[seed]
        vector %= np.uint64(modulus)


def views(toy: ToyRound, values: np.ndarray, modulus: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct views of the adversary and how many seed assignments give each."""
    seeds = AllSeeds(toy.seeds(), modulus)
    seen = [
        toy.upload(
            i, block, np.full(seeds.count, values[i, block], np.uint64), modulus, seeds.streams
        )
        for i, block in toy.cells
    ]
    seen += [seeds.values[seed] for seed in sorted(toy.revealed())]
    code = np.zeros(seeds.count, np.uint64)
    assert modulus ** len(seen) < 2**64
    for column in seen:
        code = code * np.uint64(modulus) + column
    return np.unique(code, return_counts=True)


def same(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


ROUNDS = [
    (3, ToyRound(3, 2, survivors, opened))
    for survivors, opened in product(((0, 1, 2), (0, 2)), ((), (0,), (0, 1)))
]
ROUNDS += [
    (2, ToyRound(3, 2, survivors, opened, (1,)))
    for survivors, opened in product(((0, 1, 2), (0, 2)), ((0,), (0, 1)))
]
ROUNDS += [(2, ToyRound(4, 2, (0, 1, 2), (0,), (2,))), (2, ToyRound(4, 2, (1, 2, 3), (0, 1), (0,)))]


@pytest.mark.parametrize(("modulus", "toy"), ROUNDS)
def test_inputs_with_equal_opened_sums_look_the_same(modulus: int, toy: ToyRound) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, modulus, (toy.clients, toy.blocks))
    view = views(toy, values, modulus)
    changed = values
    while np.array_equal(changed, values):
        changed = zero_sum_change(toy, values, modulus, rng)
    assert same(view, views(toy, changed, modulus))


def test_another_opened_sum_looks_different() -> None:
    """So the comparison is not blind to what may be seen."""
    toy = ToyRound(3, 2, (0, 1, 2), (0,))
    values = np.zeros((3, 2), np.int64)
    changed = values.copy()
    changed[1, 0] = 1
    assert not same(views(toy, values, 3), views(toy, changed, 3))
    changed = values.copy()
    changed[1, 1] = 1
    assert same(views(toy, values, 3), views(toy, changed, 3))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_found(fault: Fault) -> None:
    opened = (0, 1) if fault is Fault.SHARED_PAIR_SEED else (0,)
    toy = ToyRound(3, 2, (0, 1, 2), opened, fault=fault)
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (3, 2))
    assert not all(
        same(views(toy, values, 3), views(toy, zero_sum_change(toy, values, 3, rng), 3))
        for _ in range(6)
    )
