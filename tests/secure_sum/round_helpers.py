"""Federations of a few clients, and vectors whose sums are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import Outcome
from secure_fl.crypto.envelope import read_header
from secure_fl.secure_sum.blocks import BlockShape, BlockVector

COMBINATIONS = [
    ("plain", "clients"),
    ("masked", "clients"),
    ("bfv+masked", "clients"),
    ("bfv+masked", "authority"),
]
MASKED = [combination for combination in COMBINATIONS if combination[0] != "plain"]
SHAPE = BlockShape(pools=3, width=11, shared=5)
CLIENTS = 5


@dataclass
class Tape:
    """Every message of a federation, and what a test makes of some."""

    messages: list[tuple[str, str, bytes]] = field(default_factory=list)

    def __call__(self, sender: str, recipient: str, data: bytes) -> bytes:
        data = self.change(sender, recipient, data)
        self.messages.append((sender, recipient, data))
        return data

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        return data


@dataclass
class Rounds:
    """A federation that is kept over tests, and the number of its next round."""

    federation: EmbeddedFederation
    number: int = -1

    def next(self) -> int:
        self.number += 1
        return self.number


@cache
def shared_federation(protection: str, key_holder: str, clients: int = CLIENTS) -> Rounds:
    return Rounds(
        EmbeddedFederation(
            clients, protection=protection, key_holder=key_holder, rotation_rounds=10_000
        )
    )


def make_federation(
    protection: str = "masked",
    key_holder: str = "clients",
    clients: int = CLIENTS,
    tape: Tape | None = None,
) -> EmbeddedFederation:
    return EmbeddedFederation(
        clients, protection=protection, key_holder=key_holder, tap=tape, randomness=os.urandom
    )


def make_vectors(
    shape: BlockShape, choices: Mapping[str, int], seed: int = 0, most: int = 1000
) -> dict[str, BlockVector]:
    rng = np.random.default_rng(seed)
    made = {}
    for name, choice in choices.items():
        shared = (
            rng.choice([-most, -1, 0, 1, most], shape.shared).astype(np.int64)
            if shape.shared
            else None
        )
        values = rng.choice([-most, -most + 1, -1, 0, 1, most - 1, most], shape.width).astype(
            np.int64
        )
        made[name] = BlockVector.one_hot(shape, choice, values, shared=shared)
    return made


def sum_block(
    shape: BlockShape, vectors: Mapping[str, BlockVector], survivors: Sequence[str], block: int
) -> NDArray[np.int64]:
    total = np.zeros(shape.fields(block), np.int64)
    for name in survivors:
        total += vectors[name].block(shape, block)
    return total


def check_exact(
    outcome: Outcome,
    shape: BlockShape,
    vectors: Mapping[str, BlockVector],
    survivors: Sequence[str],
    minimum: int,
) -> None:
    """Opened is what it must be: sums over the survivors, of pools with enough members, and
    nothing else.
    """
    opened, names = outcome.opened, tuple(sorted(survivors))
    assert outcome.survivors == names
    counts = sum_block(shape, vectors, names, 0)
    np.testing.assert_array_equal(opened.head, counts)
    passing = tuple(pool for pool in range(shape.pools) if counts[pool] >= minimum)
    assert opened.passing == passing
    assert set(opened.pools) == set(passing)
    for pool in passing:
        np.testing.assert_array_equal(
            opened.pools[pool], sum_block(shape, vectors, names, shape.first_pool + pool)
        )
    if shape.shared:
        np.testing.assert_array_equal(opened.shared, sum_block(shape, vectors, names, 1))


def read_end(envelope: bytes) -> int:
    return len(envelope) - read_header(envelope).body_length


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def each_alone(split: Callable[..., Any]) -> Callable[..., Any]:
    """A planted `split` as what deals many secrets: one after the other."""
    return lambda secrets, *arguments, **rest: [
        split(secret, *arguments, **rest) for secret in secrets
    ]
