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
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from secure_fl.crypto.key_streams import expand
from secure_fl.crypto.shares import check_threshold
from secure_fl.errors import SecureSumError
from secure_fl.odds import default_threshold, odds, smallest_degree, withstands

__all__ = ["Neighbourhoods", "commitment", "draw", "odds", "smallest_degree", "withstands"]

_NUMBER = 2
_LABEL = b"secure_fl/secure-sum/graph/v1"


@dataclass(frozen=True)
class Neighbourhoods:
    """Neighbours of every roster position; `threshold` of a closed neighbourhood open.

    Args:
        count: clients.
        table: each one's neighbours and itself, ascending, as native 16-bit numbers.
        threshold: see above.
    """

    count: int
    table: bytes = field(repr=False)
    threshold: int

    @classmethod
    def of(cls, neighbours: Sequence[Iterable[int]], threshold: int) -> Neighbourhoods:
        """From the neighbours of every position, as many for each."""
        rows = (sorted((*near, client)) for client, near in enumerate(neighbours))
        table = b"".join(struct.pack(f"={len(row)}H", *row) for row in rows)
        return cls(len(neighbours), table, threshold)

    @property
    def degree(self) -> int:
        """How many neighbours every client has."""
        return self._holding - 1

    @property
    def _holding(self) -> int:
        return len(self.table) // (self.count * _NUMBER)

    def near(self, client: int) -> tuple[int, ...]:
        """A client's neighbours, ascending."""
        return tuple(other for other in self.holders(client) if other != client)

    def holders(self, client: int) -> tuple[int, ...]:
        """Who holds a client's shares, itself among them; the h-th holds share h + 1."""
        holding = self._holding
        return struct.unpack_from(f"={holding}H", self.table, client * holding * _NUMBER)

    def places(self, holder: int) -> dict[int, int]:
        """Of whose secrets a client holds shares, and which of the holders it is there."""
        table = np.frombuffer(self.table, np.uint16).reshape(self.count, -1)
        owners, places = np.nonzero(table == holder)
        return dict(zip(owners.tolist(), places.tolist(), strict=True))

    def stranded(self, survivors: Sequence[int]) -> tuple[int, ...]:
        """Clients whose secrets the survivors cannot open: then the round must end."""
        alive = set(survivors)
        left = [len(alive.intersection(self.holders(client))) for client in range(self.count)]
        return tuple(client for client, count in enumerate(left) if count < self.threshold)


def draw(
    committed_keys: Sequence[bytes], *, degree: int | None = None, threshold: int | None = None
) -> Neighbourhoods:
    """Neighbourhoods for a committed list of public keys, the same for everyone who holds the list.
    Raises SecureSumError: fewer than two clients, one key twice, an odd degree, or a threshold not
    above half.

    Args:
        committed_keys: one byte string for each roster position, such as both public keys;
            all different.
        degree: even; None or at least n − 1 for the complete graph.
        threshold: shares that open a secret, of degree + 1; ⌊2(degree+1)/3⌋ + 1 by default.
    """
    count = len(committed_keys)
    if count < 2 or len(set(committed_keys)) != count:
        remedy = "every client commits to keys of its own"
        raise SecureSumError("two or more different keys are needed", "roster", count, remedy)
    if degree is None or degree >= count - 1:
        rows = tuple(tuple(j for j in range(count) if j != i) for i in range(count))
    else:
        if degree < 2 or degree % 2:
            remedy = "take `smallest_degree`, or leave it out for the complete graph"
            raise SecureSumError("degree must be even", "degree", degree, remedy)
        ring = _permutation(commitment(committed_keys), count)
        around = [*range(-degree // 2, 0), *range(1, degree // 2 + 1)]
        placed = {
            client: tuple(sorted(ring[(place + step) % count] for step in around))
            for place, client in enumerate(ring)
        }
        rows = tuple(placed[i] for i in range(count))
    needed = default_threshold(len(rows[0]) + 1) if threshold is None else threshold
    check_threshold(needed, len(rows[0]) + 1)
    return Neighbourhoods.of(rows, needed)


def commitment(committed_keys: Sequence[bytes]) -> bytes:
    """SHA-256 of the list, each entry with its length."""
    parts = (part for key in committed_keys for part in (len(key).to_bytes(4, "big"), key))
    return hashlib.sha256(b"".join([_LABEL, *parts])).digest()


def _permutation(seed: bytes, count: int) -> list[int]:
    """Fisher and Yates' shuffle by 64-bit words of the stream; bias below count/2^64."""
    words = expand(seed, count).tolist()
    ring = list(range(count))
    for last in range(count - 1, 0, -1):
        other = words[last] % (last + 1)
        ring[last], ring[other] = ring[other], ring[last]
    return ring
