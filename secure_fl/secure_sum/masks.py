"""Masks that cancel: pair seeds, self-mask seeds, and what is subtracted from a sum once its
survivors agree.

For block β, client i of the survivors U uploads y_i = x_i + PRG(b_i) + Σ_{j>i} PRG(p_ij) − Σ_{j<i}
PRG(p_ij) over its neighbours j, and M = Σ_{i∈U} PRG(b_i) + Σ_{i∈U, d∈D} sgn(d−i)·PRG(p_id) leaves
exactly Σ_U x_i when it is subtracted from Σ_U y_i. Sources: Bonawitz et al., CCS 2017; Bell et al.,
CCS 2020. Every block has seeds of its own, so blocks open apart.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secure_fl.crypto.derive import hkdf
from secure_fl.crypto.key_streams import (
    KEY_BYTES,
    MOST_TERMS,
    WORDS,
    Slots,
    Streams,
    Terms,
    add_streams,
    check_modulus,
    check_slots,
    reduce,
)
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.framing import sized

_PAIR = b"secure_fl/secure-sum/pair-seed/v2"
_HKDF_MOST = 255 * 32
"""Bytes that one call of HKDF-SHA256 gives."""


class UsedSeeds:
    """Digests of the seeds this client has masked with in its last rounds; the second use of one is
    refused. Keep one for a federation.

    Guarantee: within the window no vector leaves under a mask that another one had. Older rounds
    need no memory: a seed is drawn, or derived from a key drawn, for one round number, and a client
    begins no number twice.
    Assumes: a generator that repeats itself does so within the window, as one does that a snapshot
    brought back.
    Not covered: a client restored from an older copy of itself; it must send the stored bytes of
    its upload or drop out of the round.

    Args:
        window: blocks that are remembered; `widen` raises it to several rounds' worth.
    """

    def __init__(self, window: int = 64) -> None:
        self._salt, self._window = os.urandom(16), window
        self._blocks, self._digests = deque[frozenset[bytes]](), set[bytes]()

    def widen(self, window: int) -> None:
        """Remember at least so many blocks from now on."""
        self._window = max(self._window, window)

    def spend(self, seeds: Iterable[bytes]) -> None:
        """Record one block's seeds, or none and raise SecureSumError: one was spent before."""
        named = (hashlib.blake2b(seed, digest_size=16, salt=self._salt) for seed in seeds)
        digests = [each.digest() for each in named]
        block = frozenset(digests)
        if len(block) != len(digests) or not self._digests.isdisjoint(block):
            remedy = "draw new seeds, or leave this round"
            raise SecureSumError("a mask seed may be used once", "seed", "(hidden)", remedy)
        self._blocks.append(block)
        self._digests |= block
        while len(self._blocks) > self._window:
            self._digests -= self._blocks.popleft()


def self_seeds(blocks: int, *, randomness: Callable[[int], bytes] = os.urandom) -> list[bytes]:
    """One fresh self-mask seed of 32 bytes for each block, independent of all else."""
    return [randomness(KEY_BYTES) for _ in range(blocks)]


def pair_seeds(
    own_private: X25519PrivateKey,
    their_public: X25519PublicKey,
    *,
    federation: str,
    round_number: int,
    blocks: int,
    low: int,
    high: int,
) -> list[bytes]:
    """Seeds that two clients share, one of 32 bytes for each block; both compute the same.

    Args:
        own_private: this client's s key of this round.
        their_public: the other's, signed in the roster.
        federation: its name; the seed is bound to it.
        round_number: counted from 0.
        blocks: K + 1, the counts' block first.
        low: the smaller of the two positions in the roster.
        high: the larger.

    Guarantee: HKDF-SHA256 of the X25519 secret; seeds of other blocks, rounds, pairs and
    federations are independent of it.
    Assumes: the round's keys are fresh and authentic (signed roster).
    Not covered: erasing keys from Python's memory.

    Raises:
        SecureSumError: positions out of order, a number out of range, or a public key of low order.
    """
    if not 0 <= low < high < 2**32 or not 0 <= round_number < 2**64 or not 1 <= blocks < 2**32:
        found = {"low": low, "high": high, "round": round_number, "blocks": blocks}
        raise SecureSumError("numbers out of order or range", "pair seed", found, "low < high")
    shared = _agreed(own_private, their_public, (low, high))
    return _derive(shared, federation, round_number, blocks, low, high)


def mask_terms(*, own: int, self_seed: bytes, pairs: Mapping[int, bytes], used: UsedSeeds) -> Terms:
    """The signed streams whose sum, added to a packed block x_i, makes it y_i; its seeds are spent
    by this.

    Args:
        own: this client's position in the roster.
        self_seed: b_i of this block.
        pairs: p_ij of this block by the neighbour's position j.
        used: this client's record of spent seeds.

    Guarantee: y_i is uniform to whoever lacks the self seed, and to whoever lacks one pair seed.
    Not covered: a client without neighbours has only its self mask, so it is refused.

    Raises:
        SecureSumError: no neighbours, itself among them, or a seed spent before.
    """
    if own in pairs or not pairs:
        problem = "a client needs neighbours other than itself"
        raise SecureSumError(problem, "pairs", sorted(pairs), "at least two clients in a round")
    used.spend([self_seed, *pairs.values()])
    return [(self_seed, 1), *((seed, _sign(own, other)) for other, seed in pairs.items())]


def unmask_sum(
    slots: int,
    *,
    self_seeds: Mapping[int, bytes],
    dropped: Mapping[int, Mapping[int, bytes]],
    modulus: int,
    streams: Streams = add_streams,
) -> Slots:
    """M of one block, uint64 `[slots]`: to be subtracted from the survivors' summed uploads. Raises
    SecureSumError: no survivors, or somebody in both sets, whose self and pair masks would then
    both be known.

    Args:
        slots: length of the block.
        self_seeds: b_i by position, for every survivor and nobody else.
        dropped: for each dropped client d, p_id by the position of each surviving neighbour i.
        modulus: the layout's.
        streams: what adds streams; tests put formal variables here.
    """
    both = self_seeds.keys() & dropped.keys()
    strangers = {i for pairs in dropped.values() for i in pairs} - self_seeds.keys()
    if not self_seeds or both or strangers:
        problem = "survivors and dropped clients must be disjoint, and pairs join the two"
        remedy = "use the one survivor set that was agreed on"
        found = {"both": sorted(both), "not survivors": sorted(strangers)}
        raise SecureSumError(problem, "survivors", found, remedy)
    terms = [(seed, 1) for seed in self_seeds.values()]
    terms += [(seed, _sign(i, d)) for d, pairs in dropped.items() for i, seed in pairs.items()]
    total: Slots = np.zeros(slots, np.uint64)
    streams(total, terms, modulus)
    return total


def subtract(total: Slots, masks: Slots, modulus: int) -> None:
    """total − masks modulo the modulus, in place. Raises SecureSumError: unequal lengths."""
    if total.shape != masks.shape:
        remedy = "unmask each block by itself"
        raise SecureSumError("masks of another length", "masks", (total.shape, masks.shape), remedy)
    np.subtract(total, masks, out=total)
    reduce(total, modulus)


class SlotSum:
    """Running sum of uploads of one block, lazily reduced: the server keeps it and drops each
    upload once it is added. Memory is one block, whatever the number of clients.
    """

    def __init__(self, slots: int, modulus: int) -> None:
        check_modulus(modulus)
        self._total: Slots = np.zeros(slots, np.uint64)
        self._modulus, self.count = modulus, 0

    def add(self, upload: Slots) -> None:
        """Add one upload, uint64 `[slots]`. Raises SecureSumError: another length or type, a
        residue that is not below the modulus, or more than 2^22 uploads.
        """
        check_slots(upload)
        if upload.shape != self._total.shape or self.count >= MOST_TERMS:
            problem = "upload of another length, or too many"
            raise SecureSumError(problem, "upload", len(upload), f"{len(self._total)} slots")
        if self._modulus != WORDS and len(upload) and int(upload.max()) >= self._modulus:
            remedy = "refuse the upload"
            raise SecureSumError("a residue is not below the modulus", "upload", "(hidden)", remedy)
        np.add(self._total, upload, out=self._total)
        self.count += 1

    def take_up(self, total: Slots, count: int) -> None:
        """Go on with the `total` of so many uploads. Raises SecureSumError: another length or type,
        or a residue that is not below the modulus.
        """
        self._total, self.count = np.zeros(self._total.shape, np.uint64), 0
        self.add(total)
        self.count = count

    def total(self) -> Slots:
        """The sum so far, a reduced copy."""
        total = self._total.copy()
        reduce(total, self._modulus)
        return total


def _agreed(own: X25519PrivateKey, theirs: X25519PublicKey, pair: tuple[int, int]) -> bytes:
    """The X25519 secret of two clients, by their positions."""
    try:
        return own.exchange(theirs)
    except ValueError:
        remedy = "refuse its owner's keys"
        raise SecureSumError("a public key of low order", "pair seed", pair, remedy) from None


def _derive(
    shared: bytes, federation: str, round_number: int, blocks: int, low: int, high: int
) -> list[bytes]:
    """Blocks' seeds are consecutive parts of HKDF's output; `info` says the first of each."""
    name, most, seeds = federation.encode(), _HKDF_MOST // KEY_BYTES, list[bytes]()
    for first in range(0, blocks, most):
        length = KEY_BYTES * min(most, blocks - first)
        numbers = struct.pack(">QIII", round_number, first, low, high)
        made = hkdf(shared, b"", _PAIR + sized(name) + numbers, length)
        seeds += [made[start : start + KEY_BYTES] for start in range(0, length, KEY_BYTES)]
    return seeds


def _sign(own: int, other: int) -> int:
    return 1 if other > own else -1
