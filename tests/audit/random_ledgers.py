"""Ledgers of random releases, as a run writes them."""

from __future__ import annotations

import random
from pathlib import Path

from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release

EXAMPLE, CLIENT = PrivacyUnit.EXAMPLE, PrivacyUnit.CLIENT


def release(
    key: str,
    event: Event,
    unit: PrivacyUnit = EXAMPLE,
    subjects: tuple[int, ...] = (0,),
    history: int | None = None,
    also: PrivacyUnit | None = None,
) -> Release:
    return Release(key, "p", 0, "step", unit, subjects, event, "derived", also, history)


def random_event(rng: random.Random, sampled: bool) -> Event:
    """A Gaussian event in two of three cases; one for clients may have integer noise."""
    if not sampled and rng.random() < 0.4:
        return random_integer_event(rng)
    if rng.random() < 1 / 3:
        return PureEvent(rng.choice([0.05, 0.3]), rng.random() < 0.3, rng.randint(1, 5))
    noise, rate = rng.uniform(0.7, 6.0), 1.0
    steps = rng.randint(1, 4)
    if sampled and rng.random() < 0.7:
        rate, steps = 10 ** rng.uniform(-2.3, -0.2), rng.randint(1, 200)
        noise = max(noise, 2 * rate * steps**0.5)  # ε stays where ledgers have it
    return GaussianEvent(noise, rate, steps, rng.choice([1.0, 1.0, 2.0]))


def random_integer_event(rng: random.Random) -> IntegerEvent:
    l2, kind = rng.uniform(20, 2000), rng.choice(["skellam", "discrete_gaussian"])
    variance, l1 = (rng.uniform(2, 8) * l2) ** 2, l2 * rng.uniform(1, 30)
    parties, dimension = rng.randint(1, 8), rng.randint(1, 5000)
    return IntegerEvent(
        kind, variance, l2, l1, 2 * l2, 2 * l1, parties, dimension, rng.randint(1, 10)
    )


def random_ledger(seed: int) -> tuple[PrivacyLedger, Budget]:
    """Two clients, a few releases each, some brought along from earlier runs."""
    rng = random.Random(seed)
    unit = rng.choice([EXAMPLE, EXAMPLE, CLIENT])
    adjacency = rng.choice([each for each in Adjacency if unit is EXAMPLE or each != "add-remove"])
    budget = Budget(1000.0, rng.choice([1e-5, 1e-6]), unit, adjacency)
    ledger = PrivacyLedger(budget)
    for number in range(rng.randint(1, 4)):
        client_level = unit is CLIENT or rng.random() < 0.2
        ledger.record(
            release(
                f"release {number}",
                random_event(rng, sampled=not client_level),
                CLIENT if client_level else EXAMPLE,
                rng.choice([(0,), (0, 1)]),
                rng.choice([None, None, None, 0, 1]),
                EXAMPLE if client_level else None,
            )
        )
    return ledger, budget


def saved(ledger: PrivacyLedger, folder: Path) -> Path:
    path = folder / "privacy-ledger.json"
    ledger.save(path, state=False)
    return path
