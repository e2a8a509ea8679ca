"""Who masks with whom: everybody in a small round, a sparse random graph in a large one.

Source: Bell, Bonawitz, Gascón, Lepoint and Raykova, CCS 2020 (a Harary graph under a random permutation). The permutation is drawn from
the hash of the committed key list. Whoever commits last, colluders of the server, can draw keys again and again until they sit where
they like: 40 clients at degree 6 fall in seconds. So a degree is accepted only where 2^40 such tries are allowed for (`withstands`).
Client i shares its secrets among itself and its neighbours; its threshold counts in that neighbourhood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log2

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.prg import expand
from secure_fl.secure_sum.shamir import check_threshold, default_threshold
from secure_fl.secure_sum.tails import hypergeometric_tail_log2

_LABEL = b"secure_fl/secure-sum/graph/v1"
FAILURE_LOG2 = -40.0
TRIES_LOG2 = 40.0
"""Whoever chooses keys last may try many: each set of fresh keys draws another graph."""
STALL_LOG2 = -20.0


@dataclass(frozen=True)
class Neighbourhoods:
    """Neighbours of every roster position, ascending; `threshold` of each closed neighbourhood's shares open a secret."""

    neighbours: tuple[tuple[int, ...], ...]
    threshold: int

    @property
    def degree(self) -> int:
        """Neighbours a client has."""
        return len(self.neighbours[0])

    @property
    def complete(self) -> bool:
        """Whether everybody masks with everybody."""
        return self.degree == len(self.neighbours) - 1

    def holders(self, client: int) -> tuple[int, ...]:
        """Who holds shares of a client's secrets, itself among them; share number h + 1 belongs to the h-th."""
        return tuple(sorted((*self.neighbours[client], client)))

    def stranded(self, survivors: Sequence[int]) -> tuple[int, ...]:
        """Clients whose secrets the survivors cannot open, since fewer than the threshold hold shares: then the round must end."""
        alive = set(survivors)
        return tuple(i for i in range(len(self.neighbours)) if len(alive.intersection(self.holders(i))) < self.threshold)


@dataclass(frozen=True)
class Odds:
    """log2 of upper bounds on what may go wrong in a round, over the draw of the graph.

    `exposed`: a server that lies can open some honest client's secrets. With fewer than 2t − m colluders among the m holders of its
    shares, two survivor sets cannot both be signed by t of them, and one of them alone gives one kind of secret only.
    `split`: it can separate honest survivors into groups whose sums show apart. Every survivor wants t signatures in its own
    neighbourhood; so at a gap of the ring, where all honest clients of the next half neighbourhood are called dropped, at least
    t − 1 − degree/2 colluders must stand in that half and sign.
    `stalled`: some neighbourhood keeps fewer than t survivors, and the round ends.

    Guarantee: union bounds over exact hypergeometric tails, for a server that picks drop-outs after the draw.
    Assumes: colluders are set before anybody's keys are known; each fresh set of keys is one try, and tries multiply the odds.
    Not covered: more colluders than counted.
    """

    exposed: float
    split: float
    stalled: float

    @property
    def secret(self) -> float:
        """The larger of the two that concern secrecy."""
        return max(self.exposed, self.split)


def draw(committed_keys: Sequence[bytes], *, degree: int | None = None, threshold: int | None = None) -> Neighbourhoods:
    """Neighbourhoods for a committed list of public keys, the same for everyone who holds the list.

    Args:
        committed_keys: one byte string for each roster position, such as both public keys; all different.
        degree: even; None or at least n − 1 for the complete graph.
        threshold: shares that open a secret, of degree + 1; ⌊2(degree+1)/3⌋ + 1 by default.

    Raises:
        SecureSumError: fewer than two clients, one key twice, an odd degree, or a threshold not above half.
    """
    count = len(committed_keys)
    if count < 2 or len(set(committed_keys)) != count:
        raise SecureSumError("two or more different keys are needed", field="roster", value=count, remedy="every client commits to keys of its own")
    if degree is None or degree >= count - 1:
        rows = tuple(tuple(j for j in range(count) if j != i) for i in range(count))
    else:
        _check_degree(degree)
        ring = _permutation(commitment(committed_keys), count)
        around = [*range(-degree // 2, 0), *range(1, degree // 2 + 1)]
        placed = {client: tuple(sorted(ring[(place + step) % count] for step in around)) for place, client in enumerate(ring)}
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


def odds(count: int, degree: int, threshold: int, *, colluders: int, dropouts: int) -> Odds:
    """`Odds` of one draw over `count` clients of which so many collude; `dropouts` of them stall a round, at random."""
    others, degree = count - 1, min(degree, count - 1)
    colluders, half, clients = min(colluders, others), degree // 2, log2(count)
    both_sets, gap = 2 * threshold - (degree + 1), threshold - 1 - half
    if degree == others:
        # everybody is everybody's neighbour: nothing is left to chance
        exposed = split = 0.0 if colluders >= both_sets else -inf
    else:
        exposed = clients + hypergeometric_tail_log2(others, colluders, degree, both_sets)
        split = clients + hypergeometric_tail_log2(others, colluders, half, gap)
    # a survivor holds a share of its own secrets, a dropped client does not: count it without
    stalled = clients + hypergeometric_tail_log2(others, min(dropouts, others), degree, degree - threshold + 1)
    return Odds(min(exposed, 0.0), min(split, 0.0), min(stalled, 0.0))


def withstands(shown: int, degree: int, threshold: int, *, colluders: int) -> bool:
    """Whether secrecy fails with at most 2^-40 although colluders may try 2^40 sets of keys.

    Args:
        shown: clients of the shortest list of keys that clients accept: a server that lies leaves out honest ones only.
        degree, threshold: of the graph.
        colluders: clients that collude with it.
    """
    return odds(shown, degree, threshold, colluders=colluders, dropouts=0).secret + TRIES_LOG2 <= FAILURE_LOG2


def smallest_degree(count: int, *, colluders: int, dropouts: int, shown: int | None = None) -> int:
    """The smallest even degree that `withstands` colluders and stalls a round with at most 2^-20, at the default threshold.

    Args:
        count: clients of a round.
        colluders: among them.
        dropouts: that fall silent at random.
        shown: as in `withstands`; all of them when left out.

    Returns:
        n − 1, the complete graph, where no sparse one will do.
    """
    for degree in range(2, count - 1, 2):
        threshold = default_threshold(degree + 1)
        stalled = odds(count, degree, threshold, colluders=colluders, dropouts=dropouts).stalled
        if withstands(shown or count, degree, threshold, colluders=colluders) and stalled <= STALL_LOG2:
            return degree
    return count - 1


def _check_degree(degree: int) -> None:
    if degree < 2 or degree % 2:
        raise SecureSumError(
            "degree must be even", field="degree", value=degree, remedy="take `smallest_degree`, or leave it out for the complete graph"
        )


def _permutation(seed: bytes, count: int) -> list[int]:
    """Fisher and Yates' shuffle by 64-bit words of the seed's stream; the bias of a remainder is below count/2^64."""
    words = expand(seed, count).tolist()
    ring = list(range(count))
    for last in range(count - 1, 0, -1):
        other = words[last] % (last + 1)
        ring[last], ring[other] = ring[other], ring[last]
    return ring
