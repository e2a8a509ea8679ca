"""Who masks with whom: everybody in a small round, a sparse random graph in a large one.

Source: Bell, Bonawitz, Gascón, Lepoint and Raykova, CCS 2020 (a Harary graph under a random
permutation). The permutation is drawn from the hash of the committed key list. Whoever commits
last, colluders of the server, can draw keys again and again until they sit where they like: 40
clients at degree 6 fall in seconds. So a plan accepts a degree only where 2^40 such tries are
allowed for (`secure_fl.odds`). Client i shares its secrets among itself and its neighbours; its
threshold counts in that neighbourhood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from secure_fl.crypto.key_streams import expand
from secure_fl.crypto.shares import check_threshold
from secure_fl.errors import SecureSumError
from secure_fl.odds import default_threshold, odds, smallest_degree, withstands

__all__ = ["Neighbourhoods", "commitment", "draw", "odds", "smallest_degree", "withstands"]

_LABEL = b"secure_fl/secure-sum/graph/v1"


@dataclass(frozen=True)
class Neighbourhoods:
    """Neighbours by roster position, ascending; `threshold` of a closed neighbourhood open."""

    neighbours: tuple[tuple[int, ...], ...]
    threshold: int

    @property
    def degree(self) -> int:
        """How many neighbours every client has."""
        return len(self.neighbours[0])

    def holders(self, client: int) -> tuple[int, ...]:
        """Who holds a client's shares, itself among them; the h-th holds share h + 1."""
        return self._holders[client]

    @cached_property
    def _holders(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sorted((*near, client))) for client, near in enumerate(self.neighbours))

    def stranded(self, survivors: Sequence[int]) -> tuple[int, ...]:
        """Clients whose secrets the survivors cannot open: then the round must end."""
        alive = set(survivors)
        left = [len(alive.intersection(holders)) for holders in self._holders]
        return tuple(client for client, count in enumerate(left) if count < self.threshold)


def draw(
    committed_keys: Sequence[bytes], *, degree: int | None = None, threshold: int | None = None
) -> Neighbourhoods:
    """Neighbourhoods for a committed list of public keys, the same for everyone who holds the list.

    Args:
        committed_keys: one byte string for each roster position, such as both public keys;
            all different.
        degree: even; None or at least n − 1 for the complete graph.
        threshold: shares that open a secret, of degree + 1; ⌊2(degree+1)/3⌋ + 1 by default.

    Raises:
        SecureSumError: fewer than two clients, one key twice, an odd degree, or a threshold not
            above half.
    """
    count = len(committed_keys)
    if count < 2 or len(set(committed_keys)) != count:
        remedy = "every client commits to keys of its own"
        raise SecureSumError("two or more different keys are needed", "roster", count, remedy)
    if degree is None or degree >= count - 1:
        rows = tuple(tuple(j for j in range(count) if j != i) for i in range(count))
    else:
        _check_degree(degree)
        ring = _permutation(commitment(committed_keys), count)
        around = [*range(-degree // 2, 0), *range(1, degree // 2 + 1)]
        placed = {
            client: tuple(sorted(ring[(place + step) % count] for step in around))
            for place, client in enumerate(ring)
        }
        rows = tuple(placed[i] for i in range(count))
    needed = default_threshold(len(rows[0]) + 1) if threshold is None else threshold
    check_threshold(needed, len(rows[0]) + 1)
    return Neighbourhoods(rows, needed)


def commitment(committed_keys: Sequence[bytes]) -> bytes:
    """SHA-256 of the list, each entry with its length."""
    digest = hashlib.sha256(_LABEL)
    for key in committed_keys:
        digest.update(len(key).to_bytes(4, "big") + key)
    return digest.digest()


def _check_degree(degree: int) -> None:
    if degree < 2 or degree % 2:
        remedy = "take `smallest_degree`, or leave it out for the complete graph"
        raise SecureSumError("degree must be even", "degree", degree, remedy)


def _permutation(seed: bytes, count: int) -> list[int]:
    """Fisher and Yates' shuffle by 64-bit words of the stream; bias below count/2^64."""
    words = expand(seed, count).tolist()
    ring = list(range(count))
    for last in range(count - 1, 0, -1):
        other = words[last] % (last + 1)
        ring[last], ring[other] = ring[other], ring[last]
    return ring
