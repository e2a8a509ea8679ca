"""Scores as the Gaussian mechanism gives them, and mechanisms whose ε is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_fl.audit.bounds import epsilon_of_gaussian

DELTA = 1e-5


def mu_of(epsilon: float, delta: float = DELTA) -> float:
    """The μ of the Gaussian mechanism that has this ε at δ."""
    low, high = 1e-6, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if epsilon_of_gaussian(middle, delta) < epsilon else (low, middle)
        )
    return low


@dataclass(frozen=True)
class Game:
    """What an audit of one release has."""

    scores: NDArray[np.float64]
    coins: NDArray[np.bool_]


def gaussian_game(rng: np.random.Generator, canaries: int, mu: float, noise: float = 1.0) -> Game:
    """Canaries move their score by `mu` where they are in; noise of deviation `noise`."""
    coins = rng.random(canaries) < 0.5
    return Game(mu * coins + noise * rng.normal(size=canaries), coins)


def leaky_answers(rng: np.random.Generator, canaries: int, epsilon: float, delta: float) -> Game:
    """Randomised response that tells the truth outright with probability δ: (ε, δ)-DP, and no
    mechanism of this guarantee is easier to guess one by one. Scores: ±2 outright, ±1 answered.
    """
    coins = rng.random(canaries) < 0.5
    truth = np.where(coins, 1.0, -1.0)
    answered = np.where(rng.random(canaries) < 1 / (1 + np.exp(-epsilon)), truth, -truth)
    return Game(np.where(rng.random(canaries) < delta, 2 * truth, answered), coins)
