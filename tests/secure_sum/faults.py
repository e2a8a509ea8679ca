"""One round of the mask algebra with named seeds, and the faults that every secrecy test must find.

`ToyRound` calls the shipped `mask` and `unmask_sum`; a test decides what a stream is (all values at
once, a formal variable, or AES).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

import numpy as np
from secure_sum.whole_blocks import mask

from secure_fl.crypto.key_streams import Slots, Streams, Terms
from secure_fl.secure_sum.masks import UsedSeeds, unmask_sum


class Fault(Enum):
    """What an implementation could get wrong while every sum stays right."""

    NONE = "none"
    NO_SELF_MASK = "no self mask"
    REUSED_SELF_SEED = "one self seed for two blocks"
    SHARED_PAIR_SEED = "one pair seed for two blocks"
    SWITCHED_SURVIVORS = "another survivor set at the second opening"


FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


@dataclass(frozen=True)
class ToyRound:
    """Clients 0..n−1, everybody a neighbour of everybody; `opened` blocks of `blocks`, the counts'
    block 0 first.

    The adversary is the server with the key holder and `coalition`: it has every upload (late ones
    of dropped clients too), what is revealed for openings, and all that its clients hold.
    """

    clients: int
    blocks: int
    survivors: tuple[int, ...]
    opened: tuple[int, ...]
    coalition: tuple[int, ...] = ()
    fault: Fault = Fault.NONE

    @property
    def honest(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.clients) if i not in self.coalition)

    @property
    def dropped(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.clients) if i not in self.survivors)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(client, block)."""
        return [(i, block) for i in range(self.clients) for block in range(self.blocks)]

    def self_seed(self, client: int, block: int) -> bytes:
        return b"b %d %d" % (client, 0 if self.fault is Fault.REUSED_SELF_SEED else block)

    def pair_seed(self, one: int, other: int, block: int) -> bytes:
        return b"p %d %d %d" % (
            min(one, other),
            max(one, other),
            0 if self.fault is Fault.SHARED_PAIR_SEED else block,
        )

    def seeds(self) -> list[bytes]:
        pairs = [
            self.pair_seed(i, j, block)
            for i, j in combinations(range(self.clients), 2)
            for block in range(self.blocks)
        ]
        return sorted({self.self_seed(*cell) for cell in self.cells} | set(pairs))

    def upload(
        self, client: int, block: int, vector: Slots, modulus: int, streams: Streams
    ) -> Slots:
        """y of one client and block."""
        others = [j for j in range(self.clients) if j != client]
        masked = vector.copy()
        mask(
            masked,
            own=client,
            self_seed=self.self_seed(client, block),
            pairs={j: self.pair_seed(client, j, block) for j in others},
            modulus=modulus,
            used=UsedSeeds(),
            streams=self._planted(streams),
        )
        return masked

    def opening(self, block: int, slots: int, modulus: int, streams: Streams) -> Slots:
        """M of one block."""
        return unmask_sum(
            slots,
            self_seeds={i: self.self_seed(i, block) for i in self.survivors},
            dropped={
                d: {i: self.pair_seed(i, d, block) for i in self.survivors} for d in self.dropped
            },
            modulus=modulus,
            streams=self._planted(streams),
        )

    def revealed(self) -> set[bytes]:
        """Seeds the adversary knows after the openings: s_d gives every pair seed of d, in
        all blocks.
        """
        known = {self.self_seed(i, block) for i in self.survivors for block in self.opened}
        exposed = set(self.dropped) | set(self.coalition)
        if self.fault is Fault.SWITCHED_SURVIVORS:
            exposed.add(next(i for i in self.survivors if i not in self.coalition))
        known |= {
            self.pair_seed(i, j, block)
            for i in exposed
            for j in range(self.clients)
            if j != i
            for block in range(self.blocks)
        }
        return known | {
            self.self_seed(i, block) for i in self.coalition for block in range(self.blocks)
        }

    def _planted(self, streams: Streams) -> Streams:
        def without_self_masks(vector: Slots, terms: Terms, modulus: int) -> None:
            streams(
                vector, [(seed, sign) for seed, sign in terms if not seed.startswith(b"b")], modulus
            )

        return without_self_masks if self.fault is Fault.NO_SELF_MASK else streams


def sound_rounds(
    clients: int, threshold: int, blocks: int, coalitions: tuple[int, ...]
) -> Iterator[ToyRound]:
    """Every drop pattern that leaves `threshold` survivors, every coalition of the given sizes, and
    blocks opened one after the other.
    """
    for dropped in range(clients - threshold + 1):
        for survivors in combinations(range(clients), clients - dropped):
            for size in coalitions:
                for coalition in combinations(range(clients), size):
                    for opened in range(blocks + 1):
                        yield ToyRound(clients, blocks, survivors, tuple(range(opened)), coalition)


def zero_sum_change(
    toy: ToyRound, values: np.ndarray, modulus: int, rng: np.random.Generator
) -> np.ndarray:
    """Another input `[clients, blocks]` that the adversary must not tell from `values`: opened sums
    and its own clients' rows are equal.
    """
    changed = rng.integers(0, modulus, values.shape)
    changed[list(toy.coalition)] = values[list(toy.coalition)]
    alive = [i for i in toy.survivors if i in toy.honest]
    for block in toy.opened:
        if alive:
            changed[alive[-1], block] += values[alive, block].sum() - changed[alive, block].sum()
    return changed % modulus
