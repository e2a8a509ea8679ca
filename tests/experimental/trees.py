"""Small chains of correlated noise for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.experimental.correlated import (
    PrefixTree,
    nodes_in_prefix,
)
from secure_fl.privacy.noise import NoiseSource


def mixing(rounds: int) -> NDArray[np.float64]:
    """B: `[T, T]`, which noised node is in which prefix sum."""
    found = np.zeros((rounds, rounds))
    for t in range(rounds):
        found[t, nodes_in_prefix(t)] = 1
    return found


def tree(**options: Any) -> PrefixTree:
    settings: dict[str, Any] = {
        "name": "one", "rounds": 8, "dimension": 3, "levels": 64, "noise_multiplier": 1.0,
        "adder": "key_holder", "roster": 5, "participations": 2,
    }  # fmt: skip
    return PrefixTree(**settings | options)


def by_clients(**options: Any) -> PrefixTree:
    return tree(
        **{"adder": "clients", "participations": options.get("rounds", 8), "roster": 3, **options}
    )


def source(seed: int = 0) -> NoiseSource:
    return NoiseSource.for_tests(seed)
