"""How many colluders a sum among clients withstands: thresholds, and the odds of a sparse random
graph of neighbours. Numbers only.

Each client shares its secrets among the m of its closed neighbourhood, and t of the shares open
one. Source of the graph: Bell, Bonawitz, Gascón, Lepoint and Raykova, CCS 2020; of the bounds
against a server that lies: here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, lgamma, log, log2

FAILURE_LOG2 = -40.0
TRIES_LOG2 = 40.0
"""Whoever chooses keys last may try many: each set of fresh keys draws another graph."""
STALL_LOG2 = -20.0


def default_threshold(count: int) -> int:
    """⌊2n/3⌋ + 1 of n shares: two sets of so many holders have more than n/3 in common."""
    return 2 * count // 3 + 1


@dataclass(frozen=True)
class Odds:
    """log2 of upper bounds on what may go wrong in a round, over the draw of the graph.

    `exposed`: a server that lies can open some honest client's secrets. With fewer than 2t − m
    colluders among the m holders of its shares, two survivor sets cannot both be signed by t of
    them, and one of them alone gives one kind of secret only.
    `split`: it can separate honest survivors into groups whose sums show apart. Every survivor
    wants t signatures in its own neighbourhood; so at a gap of the ring, where all honest clients
    of the next half neighbourhood are called dropped, at least t − 1 − degree/2 colluders must
    stand in that half and sign.
    `stalled`: some neighbourhood keeps fewer than t survivors, and the round ends.

    Guarantee: union bounds over exact hypergeometric tails, for a server that picks drop-outs after
    the draw.
    Assumes: colluders are set before anybody's keys are known; each fresh set of keys is one try,
    and tries multiply the odds.
    Not covered: more colluders than counted.
    """

    exposed: float
    split: float
    stalled: float

    @property
    def secret(self) -> float:
        """The larger of the two that concern secrecy."""
        return max(self.exposed, self.split)


def odds(count: int, degree: int, threshold: int, *, colluders: int, dropouts: int) -> Odds:
    """`Odds` of one draw over `count` clients; `dropouts` of them stall a round, at random."""
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
    stalled = clients + hypergeometric_tail_log2(
        others, min(dropouts, others), degree, degree - threshold + 1
    )
    return Odds(min(exposed, 0.0), min(split, 0.0), min(stalled, 0.0))


def withstands(shown: int, degree: int, threshold: int, *, colluders: int) -> bool:
    """Whether secrecy fails with at most 2^-40 although colluders may try 2^40 sets of keys.

    Args:
        shown: clients of the shortest list of keys that clients accept: a server that lies leaves
            out honest ones only.
        degree, threshold: of the graph.
        colluders: clients that collude with it.
    """
    one_try = odds(shown, degree, threshold, colluders=colluders, dropouts=0).secret
    return one_try + TRIES_LOG2 <= FAILURE_LOG2


def smallest_degree(count: int, *, colluders: int, dropouts: int, shown: int | None = None) -> int:
    """The smallest even degree that `withstands` colluders, of whom a list of keys of `shown`
    clients holds all, and stalls a round of `count` with at most 2^-20 by random dropouts, at the
    default threshold; n − 1, the complete graph, where no sparse one will do.
    """
    for degree in range(2, count - 1, 2):
        threshold = default_threshold(degree + 1)
        stalled = odds(count, degree, threshold, colluders=colluders, dropouts=dropouts).stalled
        if (
            withstands(shown or count, degree, threshold, colluders=colluders)
            and stalled <= STALL_LOG2
        ):
            return degree
    return count - 1


def hypergeometric_tail_log2(total: int, marked: int, draws: int, least: int) -> float:
    """log2 P(at least `least` of `marked` among `draws` without replacement from `total`)."""
    most = min(marked, draws)
    first = max(least, draws - (total - marked), 0)
    if first > most:
        return float("-inf")
    if least <= max(0, draws - (total - marked)):
        return 0.0
    terms = [
        _log_choose(marked, k) + _log_choose(total - marked, draws - k) - _log_choose(total, draws)
        for k in range(first, most + 1)
    ]
    peak = max(terms)
    return min(0.0, (peak + log(sum(exp(term - peak) for term in terms))) / log(2))


def _log_choose(items: int, chosen: int) -> float:
    return lgamma(items + 1) - lgamma(chosen + 1) - lgamma(items - chosen + 1)
