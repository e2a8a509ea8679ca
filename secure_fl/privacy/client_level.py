"""Client-level privacy: one integer mechanism for a client's update, its pool and every count.

A client clips its update, takes it to a whole number of steps, puts it into the block of its pool
with zeros in all others (`secure_sum.grid`), and adds its share of integer noise to every field.
All fields get noise of one variance; how well a count must be known is set by its unit, the integer
that one member adds. So head (counts first, then the bit of the adaptive bound), shared part and K
pool blocks are one vector under one mechanism.

**Guarantee**: for zero-out on a public roster, or replace-one, the sum of the vectors moves by at
most what `ClientLevel.event` states, and the noise of the n_min − c honest survivors that are
certain alone has the variance it states. Everything after the sum is post-processing.

**Assumes**: every survivor adds its share, also when it has nothing to contribute; fewer than n_min
survivors are never opened (neither function opens them); c is at least the number of survivors who
would subtract their own shares; the choice depends on the client's own data and on released values
only; the streams are secret.

**Not covered**: add-remove, because a client that is missing takes its noise share along; clients
that lie about their norm or leave out noise beyond c; who is on the roster and who dropped out,
which are public; averages by a weight, which would be a count of a client's examples and is not
sent.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, floor, inf, isqrt, nextafter, sqrt
from typing import Literal

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.integer_noise import (
    LARGEST_DEVIATION,
    IntegerNoise,
    discrete_gaussian,
    skellam,
)
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.noise_tables import TOTAL_VARIATION
from secure_fl.privacy.pool_counts import count_noise_for, false_pass_probability
from secure_fl.secure_sum.fixed_point import rounded, square_of
from secure_fl.secure_sum.grid import Blocks, Counted, Frame, means
from secure_fl.secure_sum.noise_bounds import largest_noise

FIELD_LIMIT = 2**19 - 1
"""Largest magnitude of a sum in one field of the secure sum: two signed fields a 40-bit slot."""
SMALLEST_GRID = 16
"""Least deviation of the noise, in grid steps.

Below it Skellam noise costs visibly more than Gaussian, and its tail is not the normal's to three
digits.
"""


@dataclass(frozen=True)
class ClientLevel:
    """Settings of the mechanism, equal at every client and at whoever opens.

    Attributes:
        pools, pooled, shared: K blocks of `pooled` fields, and `shared` fields that all sum.
        bound: first norm bound C of an update, in the update's units.
        levels: C in grid steps, ⌊sC⌋ for a scale s; it stays when the bound adapts, so every round
            costs the same.
        noise_multiplier: z; deviation of the certain noise over C.
        roster, n_min, colluders: clients asked; fewest survivors that are opened; survivors whose
            noise does not count, at least 1.
        kind: family of the noise.
        rounding: "toward_zero" never lengthens a vector. "conditional" is unbiased up to its
            condition, and charged for its larger bound.
        minimum: a pool is opened, and its sum divided, at this many members or more.
        count_noise: σ_c, deviation of the certain noise on a count, in members; None for the
            largest that `accepted_false_pass` allows.
        accepted_false_pass: largest accepted probability that a pool of one true member passes,
            when the whole roster's noise is in.
        bit_noise: σ_b of the adaptive bound's bit, in clients; None for a fixed bound.

    Raises:
        PrivacyError: a setting is out of range, or the counts are noisier than accepted.
    """

    pools: int
    pooled: int
    bound: float
    levels: int
    noise_multiplier: float
    roster: int
    n_min: int
    colluders: int = 1
    shared: int = 0
    kind: Literal["skellam", "discrete_gaussian"] = "skellam"
    rounding: Literal["toward_zero", "conditional"] = "toward_zero"
    minimum: int = 2
    count_noise: float | None = None
    accepted_false_pass: float = 0.05
    bit_noise: float | None = None

    def __post_init__(self) -> None:
        for holds, name, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, name, getattr(self, name), remedy)
        if self.pools > 1 and (found := self.false_pass) > self.accepted_false_pass + 1e-12:
            problem = f"a pool of one member passes with probability {found:.1%}"
            remedy = "lower it, raise minimum, or raise accepted_false_pass"
            raise PrivacyError(problem, "count_noise", self.count_noise, remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        noises, z = (self.count_noise, self.bit_noise), self.noise_multiplier
        # fmt: off
        return [
            (self.pools >= 1 and self.pooled >= 1 and self.shared >= 0, "pools",
             "there must be a block to release", "pools and pooled from 1 on"),
            (0 < self.bound < inf, "bound", "not a finite positive norm", "for example 1.0"),
            (self.levels >= 1, "levels",
             "the grid has no step below the bound", "for example 2**12"),
            (0 < z < inf, "noise_multiplier", "not a finite positive number", "for example 1.0"),
            (z * self.levels >= SMALLEST_GRID, "levels",
             "the grid is too coarse for the noise", "raise levels"),
            (1 <= self.colluders < self.n_min, "colluders",
             "every client knows its own noise, and one must be honest", "at least 1, below n_min"),
            (self.n_min <= self.roster, "n_min", "more than the roster", "at most the roster"),
            (self.variance <= self.honest * LARGEST_DEVIATION**2, "levels",
             "a share's noise is too wide to draw", "lower levels, or fitted()"),
            (self.minimum >= 1, "minimum",
             "not a number of members", "at least 2 for a pool of one to stay closed"),
            (all(noise is None or 0 < noise < inf for noise in noises), "count_noise",
             "a noise is not finite and positive", "None for the default"),
            (0 < self.accepted_false_pass < 1, "accepted_false_pass",
             "not a probability within (0, 1)", "0.05"),
        ]
        # fmt: on

    @property
    def honest(self) -> int:
        """Survivors whose noise is certain."""
        return self.n_min - self.colluders

    @property
    def variance(self) -> float:
        """The variance of the certain noise on every field, in grid steps squared.

        The whole roster's noise is `roster / honest` times it.
        """
        return (self.noise_multiplier * self.levels) ** 2

    @property
    def _every(self) -> float:
        """Deviation of the whole roster's noise on a field, in steps: the most there can be."""
        return sqrt(self.variance * self.roster / self.honest)

    @cached_property
    def frame(self) -> Frame:
        """Where the fields of a client's vector lie."""
        return Frame(self.pools, self.shared, self.pooled, self.count_unit, self._bit_unit)

    @property
    def fields(self) -> int:
        """Length of the whole vector."""
        return self.frame.fields

    @cached_property
    def count_unit(self) -> int:
        """What one member adds to its pool's count; 0 where there is one pool."""
        if self.pools == 1:
            return 0
        if self.count_noise is not None:
            return ceil(sqrt(self.variance) / self.count_noise)
        noise, others = count_noise_for(self.minimum, self.accepted_false_pass), self.minimum - 1
        return ceil((self._every / noise * others + 0.5) / others)

    @property
    def _bit_unit(self) -> int:
        """What the bit adds or takes off: half of a unit, so that it moves the sum half as far.

        Andrew et al. 2021.
        """
        return 0 if self.bit_noise is None else ceil(sqrt(self.variance) / (2 * self.bit_noise))

    @property
    def false_pass(self) -> float:
        """Probability that a pool of one true member passes, with the noise of the whole roster.

        That is the most noise there can be; a pool of none passes less often.
        """
        if self.pools == 1:
            return 0.0
        unit = self.count_unit
        return false_pass_probability(self._every / unit, self.minimum, steps=unit)

    @cached_property
    def square_bound(self) -> int:
        """Largest square of an encoded update's norm.

        Rounding at random adds up to a step a coordinate, so it is charged for more. An
        unconditioned random rounding of a vector of norm L in d dimensions has a square of at most
        L² + d/4 + √(2 ln 1/β)·(L + √d/2) with probability 1 − β, and (L + √d)² always (Kairouz,
        Liu, Steinke 2021); here β = e^(-1/2), so that a try succeeds in 39 % or more.
        """
        if self.rounding == "toward_zero":
            return self.levels**2
        d = self.pooled + self.shared
        likely = self.levels**2 + d / 4 + self.levels + sqrt(d) / 2
        return floor(min((self.levels + sqrt(d)) ** 2, likely))

    def event(self, releases: int) -> IntegerEvent:
        """What `releases` rounds of a client cost, charged for the noise of n_min − c.

        With B² the square bound, unit u for the count and h for the bit, the squared zero-out
        sensitivity is B² + u² + h². Replaced, a client stays in its pool: 4B² + 4h²; or changes it:
        2(B² + u²) + 4h², and the shared part, which is not one-hot, can turn round: 4B² instead of
        2B². For integers ‖q‖₁ is at most both ‖q‖₂² and √d·‖q‖₂.
        """
        square, u, h = self.square_bound, self.count_unit, self._bit_unit
        length = min(float(square), sqrt((self.pooled + self.shared) * square))
        stays = 4 * square + 4 * h**2
        moves = (4 if self.shared else 2) * square + 2 * u**2 + 4 * h**2
        return IntegerEvent(
            kind=self.kind,
            variance=self.variance,
            l2=nextafter(sqrt(square + u**2 + h**2), inf),
            l1=nextafter(length + u + h, inf),
            l2_replace=nextafter(sqrt(max(stays, moves) if self.pools > 1 else stays), inf),
            l1_replace=nextafter(2 * (length + h) + 2 * u, inf),
            parties=self.honest,
            dimension=self.fields,
            releases=releases,
            tv_per_draw=TOTAL_VARIATION,
        )

    @property
    def largest_fields(self) -> tuple[int, int]:
        """Largest magnitudes of a client's fields, its noise aside: outside the head, and in it."""
        return isqrt(self.square_bound), max(self.count_unit, self._bit_unit)

    @cached_property
    def noise_margin(self) -> int:
        """A magnitude that the whole roster's noise passes in no field of a sum.

        Save with probability 2^-40 over all of them.
        """
        return largest_noise(self._every, self.fields)

    @property
    def largest(self) -> int:
        """A magnitude that no field of the sum passes, save with probability 2^-40.

        Every client at its largest in one field, and the noise of all.
        """
        return self.roster * max(self.largest_fields) + self.noise_margin

    def fitted(self, limit: int = FIELD_LIMIT) -> ClientLevel:
        """With the most levels whose sums stay within `limit`. Raises PrivacyError: none do."""
        low = ceil(SMALLEST_GRID / self.noise_multiplier)
        widest = floor(LARGEST_DEVIATION * sqrt(self.honest) / self.noise_multiplier)
        if replace(self, levels=low).largest > limit:
            remedy = "fewer clients, less noise, noisier counts (a larger minimum), or wider fields"
            raise PrivacyError(f"sums would pass {limit} on any grid", "levels", low, remedy)

        def largest(levels: int) -> int:
            return replace(self, levels=levels).largest

        grids = range(min(limit, widest) + 1)
        return replace(self, levels=bisect_right(grids, limit, lo=low + 1, key=largest) - 1)

    def encode(
        self, update: Tensor, bound: float | None = None, *, stream: NoiseStream | None = None
    ) -> Tensor:
        """Clip `update` `[shared + pooled]` to `bound`, and round it to int64 of the same shape.

        The bound is the first one when None. An update with a value that is not finite becomes
        zero. "conditional" rounding takes its coins from `stream`.

        Raises:
            PrivacyError: wrong length or bound; coins missing; or the integers are longer than
                charged, which rounding excludes.
        """
        if update.shape != (self.shared + self.pooled,):
            value, remedy = tuple(update.shape), f"pass shape [{self.shared + self.pooled}]"
            raise PrivacyError("not one update", "update", value, remedy)
        bound = self.bound if bound is None else bound
        if not 0 < bound < inf:
            problem, remedy = "not a finite positive norm", "pass the round's public bound"
            raise PrivacyError(problem, "bound", bound, remedy)
        if self.rounding == "conditional" and stream is None:
            problem, remedy = "random rounding needs coins", "pass a stream of its own purpose"
            raise PrivacyError(problem, "stream", None, remedy)
        norm, steps = norm_of(update), torch.zeros(len(update), dtype=torch.float64)
        if norm < inf:
            steps = (update.double() / max(norm, bound)).mul_(self.levels)
        coins = stream.uniform if stream and self.rounding == "conditional" else None
        integers = rounded(steps, self.square_bound, coins)
        if square_of(integers) > self.square_bound:
            problem, remedy = "the integers are longer than charged", "report this: clipping failed"
            raise PrivacyError(problem, "update", "its norm", remedy)
        return integers

    def blocks(self, integers: Tensor, pool: int, *, inside: bool | None = None) -> Blocks:
        """The one-hot vector of a client that chose `pool`: its `encode`d update, count and bit.

        `inside` says whether the update was within the bound before clipping; needed where the
        bound adapts.

        Raises:
            SecureSumError: no such pool, or the bit is missing.
        """
        made = self.frame.blank(pool, inside)
        made.shared[:], made.pools[pool] = integers.split([self.shared, self.pooled])
        return made

    def absent(self) -> Blocks:
        """All zeros: what a client without an update contributes, together with its noise share."""
        return self.frame.cut(torch.zeros(self.fields, dtype=torch.int64))

    @cached_property
    def _share(self) -> IntegerNoise:
        variance = self.variance / self.honest
        return skellam(variance) if self.kind == "skellam" else discrete_gaussian(sqrt(variance))

    def share(self, stream: NoiseStream, length: int) -> Tensor:
        """One client's noise on `length` fields, int64: n_min − c shares add up to `variance`."""
        return torch.from_numpy(self._share.sample(stream, length))

    def noised(self, blocks: Blocks, stream: NoiseStream) -> Blocks:
        """`blocks` plus the client's noise share in every field.

        What may leave the client, once, under masks and encryption.
        """
        return blocks + self.frame.cut(self.share(stream, self.fields))

    def open_head(self, head: Tensor, survivors: int) -> Counted:
        """Counts and bit from the summed head `[H]`; they decide which pools may be opened.

        Raises:
            PrivacyError: fewer survivors than n_min, so that the noise charged for may not be
                there; or more than the roster.
        """
        self._check(survivors)
        return self.frame.counted(head, survivors, self._least)

    def open_pools(
        self, total: Blocks, counted: Counted, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean changes, float64: of the shared part `[S]` and of every pool `[K, pooled]`.

        The shared sum is divided by the public survivors, a pool's by its noised count, at least
        `minimum`. Pools that do not pass do not change; what `total.pools` holds for them is not
        read.

        Raises:
            PrivacyError: as `open_head`.
        """
        self._check(counted.survivors)
        step = (self.bound if bound is None else bound) / self.levels
        shared, pools = total.shared.double() * step, total.pools.double() * step
        return means(shared, pools, counted, self._least)

    @property
    def _least(self) -> int:
        """Members from which on a pool is opened; where there is one pool, n_min alone decides."""
        return self.minimum if self.pools > 1 else 1

    def _check(self, survivors: int) -> None:
        if not self.n_min <= survivors <= self.roster:
            remedy = f"open only sums of {self.n_min} to {self.roster} clients; or begin with less"
            raise PrivacyError("the sum must not be opened", "survivors", survivors, remedy)


def norm_of(update: Tensor) -> float:
    """Euclidean norm in float64, safe from overflow; inf when a value is not finite.

    An update is `inside` a bound where this is at most the bound.
    """
    x = update.double()
    peak = float(x.abs().max()) if len(x) else 0.0
    if not peak < inf:
        return inf
    return peak * float((x / peak).norm()) if peak > 0 else 0.0
