"""Noise of layers: what is as stated raises alarms no more often than is said, what is not does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from secure_fl.audit.checks.layer_noise import Layers
from secure_fl.audit.checks.seeds import _fixed

SIZES = (300, 40, 900, 8)


def layers(parts: list[np.ndarray]) -> Layers:
    squares = np.stack([(part**2).sum(1) for part in parts], axis=1)
    numbers = (np.concatenate(parts, axis=1) ** 2).sum(0)
    return Layers(squares, np.array([part.shape[1] for part in parts]), numbers, tuple(parts))


def drawn(seed: int, steps: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(steps, size)) for size in SIZES]


@pytest.mark.parametrize("level", [0.2, 0.02])
def test_false_alarms_are_no_more_frequent_than_the_level(level: float) -> None:
    found = dict.fromkeys(layers(drawn(0)).tests(), 0)
    for seed in range(200):
        for name, p in layers(drawn(seed)).tests().items():
            found[name] += p <= level
    most = 200 * level + 4 * (200 * level) ** 0.5
    assert all(count <= most for count in found.values()), found


def test_every_departure_is_found_by_its_own_test() -> None:
    bare, alike, one = drawn(1), drawn(1), drawn(1)
    bare[1] *= 0.5
    assert layers(bare).tests()["a layer has less noise than stated"] < 1e-9
    alike[2][:, :300] = -alike[0]
    assert layers(alike).tests()["noise repeats between layers"] < 1e-9
    one[2][:, 17] = 0.0
    assert layers(one).tests()["a weight is not noised"] < 1e-9
    beside = layers(drawn(1))
    moved = np.concatenate([beside.heads[2][:, 100:200]] * 2, axis=1)
    assert replace(beside, heads=(moved,)).tests()["noise repeats between weights"] < 1e-9


def test_a_byte_that_is_the_same_in_all_keys_is_seen_once_there_are_some() -> None:
    rng = np.random.default_rng(0)
    keys = [rng.bytes(32) for _ in range(8)]
    assert _fixed(keys) == 1.0
    short = [key[:4] + bytes(28) for key in keys]
    assert _fixed(short) < 1e-12
    assert _fixed(short[:1]) == 1.0
