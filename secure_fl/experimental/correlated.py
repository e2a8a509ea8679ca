"""Correlated noise (DP-FTRL): noised prefix sums of integer vectors by a binary tree, where whoever
adds the noise is there in every round.

**Mechanism.** Rounds t = 0 … T − 1 have sums xₜ of clients' integer vectors. Round t completes one
node: the last 2^l rounds up to t, with 2^l the largest power of two that divides t + 1 (a Fenwick
tree). Node t has noise nₜ of its own, drawn once. The prefix sum up to t is the sum of at most
⌊log₂ T⌋ + 1 noised nodes, one for each binary digit 1 of t + 1, so its noise has variance v ·
popcount(t + 1). Right halves of larger nodes stand in no prefix, so they are not released. A
round's output is xₜ + nₜ − (noise of the nodes that node t takes up): their sums telescope to the
prefix sums.

**Guarantee.** Let a client take part in at most k rounds, at least b apart, each time with a vector
of length at most L. Zero-out: given all earlier outputs, round t's output and noised node t
determine each other, and the node differs between neighbours by the client's own vectors in it. If
S are the client's rounds, that is at most L·|S ∩ node t|, so the whole chain's squared sensitivity
is at most

    L² · M,   M = max over S of Σₜ |S ∩ node t|²,

whatever of xₜ and S follows from earlier outputs: Rényi divergences of adaptive releases add up,
here to that of one vector of all nodes, since the curves of `integer_curves` are bounds that add
over its parts. The triangle inequality in the node is met by equal vectors, so M is the smallest
such number. `participation_bound` computes it: over a node's two halves, with m = m₁ + m₂ rounds in
them, the nodes inside add up separately, and a node of 2^l rounds holds at most ⌈2^l / b⌉ of them.
The maximum over all such splits is over more than the patterns if b > 1, so it is safe, and exact
if b = 1. Replace-one turns each vector round at most: twice the length.

**Assumes.** Whoever adds noise adds it in every round, and keeps it and its stream secret. Either
the *key holder* adds it, and refuses rounds in which a client would exceed k or b; it sees sums
without noise, so the claim excludes it. Or *all clients* add shares, all of them in all rounds (k =
T): the noise of the round after a loss would lack the loser's shares, old and new, so a lost client
ends the chain for ever.

**Not covered.** Add-remove; clients that may be missing and add noise; rounds chosen by sampling,
which amplifies nothing here.

**Resuming.** A chain's state is its open nodes' noise, at most ⌊log₂ T⌋ + 1 vectors a party:
whoever reads them strips released sums of it. So it stays in memory, and `tree_chains` neither
stores nor copies it. After a crash the chain is over; another one has other noise, and is
charged again.

**Full participation leaves little to gain.** Write the prefix sums as A = BC, release Cx + noise
and multiply by B. If a client may move every sum by 1 in one direction, the squared sensitivity
is at least ‖C1‖², and the total squared error at least ‖B‖²·‖C1‖² ≥ ‖BC1‖² = ‖A1‖² = 1² + … +
T² = T(T + 1)(2T + 1)/6. Independent draws have B = A, C = I: ‖A‖² · T = T²(T + 1)/2. The ratio
is 3T/(2T + 1): **no factorisation saves more than a factor of 1.5**. This tree for T a power of
two has M = T(3T − 1)/2, so its last prefix sum, one node, has 1.5 − 1/(2T) times the variance of
T draws.

Sources: Dwork et al. 2010 and Chan, Shi, Song 2011 (trees); Kairouz et al. 2021, arXiv 2103.00039;
Choquette-Choo et al. 2023, arXiv 2306.08153 (k and b).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, nextafter, sqrt
from typing import Literal

from secure_fl.errors import PrivacyError
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.integer_noise import (
    LARGEST_DEVIATION,
    IntegerNoise,
    discrete_gaussian,
    skellam,
)
from secure_fl.privacy.ledger import NOISED_BY_KEY_HOLDER, Release
from secure_fl.privacy.noise_tables import TOTAL_VARIATION

_SMALLEST_DEVIATION = 16
"""Of a node's noise, in grid steps: below it Skellam noise costs visibly more than Gaussian."""


def require_correlated_noise(*, adder: str, full_participation: bool) -> str:
    """Where correlated noise is valid, the sentence that its claim must carry.

    Args:
        adder: "key_holder" or "clients".
        full_participation: every client is in every round, and the chain of noise ends when one
            is lost.

    Raises:
        PrivacyError: clients add the noise and may be missing from a round.
    """
    if adder == "key_holder":
        seen = "the key holder adds the noise and sees the sums without it"
        return f"{seen}: the claim excludes the key holder"
    if adder == "clients" and full_participation:
        whole = "every client takes part in every round"
        return f"{whole}; a lost client ends the chain of correlated noise"
    problem = "a client that drops out breaks the chain of correlated noise"
    remedy = 'noise = "independent", the key holder adds the noise, or full participation'
    raise PrivacyError(problem, "noise", adder, remedy)


def node_of(round_number: int) -> range:
    """The rounds that the node completed in this round (from 0) covers."""
    end = round_number + 1
    return range(end - (end & -end), end)


def nodes_in_prefix(round_number: int) -> list[int]:
    """The nodes, by the rounds that complete them, that sum to the prefix up to this round."""
    nodes, end = [], round_number + 1
    while end:
        nodes.append(end - 1)
        end -= end & -end
    return nodes


def participation_bound(rounds: int, participations: int, separation: int = 1) -> int:
    """M: the largest Σₜ |S ∩ node t|² of at most `participations` rounds, at least `separation`
    apart, out of `rounds`; exact for separation 1. Raises PrivacyError: a number is below 1.
    """
    names = ("rounds", "participations", "separation")
    for field, value in zip(names, (rounds, participations, separation), strict=True):
        if value < 1:
            raise PrivacyError("not a count", field, value, "a whole number of at least 1")

    def join(left: list[int], right: list[int], size: int) -> list[int]:
        """Best Σ by the rounds taken, over a released node `left` and what is right of it."""
        most = min(participations, -(-size // separation), len(left) + len(right) - 2)
        best = []
        for taken in range(most + 1):
            ways = range(max(0, taken - len(right) + 1), min(taken, len(left) - 1) + 1)
            best.append(max(left[m] + m**2 + right[taken - m] for m in ways))
        return best

    inside = [[0, 0]]  # of a node of 2^l rounds, its own square left out
    while 2 << (len(inside) - 1) <= rounds:
        inside.append(join(inside[-1], inside[-1], 2 << (len(inside) - 1)))
    total, size = [0], 0
    for level, best in enumerate(inside):
        if rounds >> level & 1:
            size += 1 << level
            total = join(best, total, size)
    return max(total)


@dataclass(frozen=True)
class PrefixTree:
    """One chain of correlated noise: what everybody knows of it before it begins.

    Attributes:
        name: of this chain and no other, for ever.
        rounds: T.
        dimension: d, length of a round's vector.
        levels: L, bound on the 2-norm of one client's integer vector in one round.
        noise_multiplier: z; deviation of a node's certain noise over the chain's sensitivity L·√M.
            The chain is one release of this z.
        adder: who adds the noise.
        roster: clients, numbered from 0.
        participations, separation: k and b. Clients as adders take part in all rounds.
        colluders: clients whose noise does not count, where clients add it; at least 1.
        kind: of clients' shares. The key holder's noise is a discrete Gaussian.

    Raises:
        PrivacyError: a number is out of range, or this is not a place where correlated noise
            is valid.
    """

    name: str
    rounds: int
    dimension: int
    levels: int
    noise_multiplier: float
    adder: Literal["key_holder", "clients"]
    roster: int
    participations: int
    separation: int = 1
    colluders: int = 1
    kind: Literal["skellam", "discrete_gaussian"] = "skellam"

    def __post_init__(self) -> None:
        full = self.participations == self.rounds and self.separation == 1
        require_correlated_noise(adder=self.adder, full_participation=full)
        for holds, field, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, field, getattr(self, field), remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        # fmt: off
        return [
            (bool(self.name), "name", "a chain needs a name of its own",
             "for example secrets.token_hex(8)"),
            (self.dimension >= 1, "dimension", "nothing to release", "at least 1"),
            (1 <= self.levels <= 2**20, "levels", "not a grid of some steps up to the bound",
             "for example 2**10"),
            (self.participation_bound >= 1, "participations", "nobody takes part", "at least 1"),
            (0 < self.noise_multiplier < inf, "noise_multiplier", "not a finite positive number",
             "for example 1.0"),
            (self.roster >= 1, "roster", "nobody takes part", "at least 1 client"),
            (self.adder == "key_holder" or 1 <= self.colluders < self.roster, "colluders",
             "every client knows its own noise, and one must be honest",
             "at least 1, below the roster"),
            (self.kind in ("skellam", "discrete_gaussian"), "kind", "unknown integer noise",
             "skellam or discrete_gaussian"),
            (self.variance >= _SMALLEST_DEVIATION**2, "levels",
             "the grid is too coarse for the noise", "raise levels"),
            (self.variance <= self.parties * LARGEST_DEVIATION**2, "levels",
             "a party's noise is too wide to draw", "lower levels"),
        ]
        # fmt: on

    @cached_property
    def participation_bound(self) -> int:
        """M: the bound of `participation_bound` for this tree's rounds, k and b."""
        most = min(self.participations, self.rounds)
        return participation_bound(self.rounds, most, self.separation)

    @property
    def most_rounds(self) -> int:
        """That one client can take part in."""
        return min(self.participations, -(-self.rounds // self.separation))

    @property
    def claim(self) -> str:
        """What every claim from this chain must say."""
        return require_correlated_noise(adder=self.adder, full_participation=True)

    @property
    def parties(self) -> int:
        """Whose noise makes up `variance`: the key holder's, or the roster's less colluders'."""
        return 1 if self.adder == "key_holder" else self.roster - self.colluders

    @property
    def variance(self) -> float:
        """v: of the certain noise on one coordinate of one node, in grid steps squared. With all
        clients' shares `roster / parties` times it.
        """
        return self.noise_multiplier**2 * self.levels**2 * self.participation_bound

    def prefix_variance(self, round_number: int) -> float:
        """Of the certain noise on one coordinate of the prefix sum up to this round."""
        return self.variance * (round_number + 1).bit_count()

    @property
    def against_independent(self) -> float:
        """Total squared error of all prefix sums over that of independent noise a round at the same
        guarantee; above 1, take that instead.
        """
        ones = sum((t + 1).bit_count() for t in range(self.rounds))
        independent = self.most_rounds * self.rounds * (self.rounds + 1) / 2
        return self.participation_bound * ones / independent

    def event(self) -> IntegerEvent:
        """What the whole chain costs a client: one vector, `rounds · dimension` integers long."""
        square = self.levels**2 * self.participation_bound
        # of one vector: for integers ‖q‖₁ is at most both
        one = min(float(self.levels**2), self.levels * sqrt(self.dimension))
        # a round is in at most so many nodes
        l1 = max(self.most_rounds * self.rounds.bit_length() * one, sqrt(square))
        return IntegerEvent(
            kind="discrete_gaussian" if self.adder == "key_holder" else self.kind,
            variance=self.variance,
            l2=nextafter(sqrt(square), inf),
            l1=nextafter(l1, inf) * (1 + 1e-12),
            l2_replace=nextafter(2 * sqrt(square), inf),
            l1_replace=nextafter(2 * l1, inf) * (1 + 1e-12),
            parties=self.parties,
            dimension=self.rounds * self.dimension,
            releases=1,
            tv_per_draw=TOTAL_VARIATION,
        )

    def release(self, phase: str = "pretrain") -> Release:
        """The ledger's entry for the chain and all clients, charged once, before it begins."""
        by_all = "prefix sums, noised by all clients"
        return Release(
            key=f"{phase}/tree/{self.name}",
            phase=phase,
            round=0,
            purpose=NOISED_BY_KEY_HOLDER if self.adder == "key_holder" else by_all,
            unit=PrivacyUnit.CLIENT,
            subjects=tuple(range(self.roster)),
            event=self.event(),
            basis="derived",
            also_protects=PrivacyUnit.EXAMPLE,
        )

    def noise(self) -> IntegerNoise:
        """The law of the share of a node's noise that one party draws."""
        share = self.variance / self.parties
        if self.adder == "clients" and self.kind == "skellam":
            return skellam(share)
        return discrete_gaussian(sqrt(share))
