"""Client-level privacy: one integer mechanism covers a client's whole update, the pool it chose and every count.

A client scales its update to a grid, rounds it, puts it into the block of its pool with zeros in all others, and adds its share of integer
noise to every field. All fields get noise of one variance; how well a count must be known is set by its unit, the integer that one member
adds. So head (counts first, then the bit of the adaptive bound), shared part and K pool blocks are one vector under one mechanism.

**Guarantee**: for zero-out on a public roster, or replace-one, the sum of the vectors moves by at most what `ClientLevel.event` states, and
the noise of the n_min − c honest survivors that are certain alone has the variance it states. Everything after the sum is post-processing.

**Assumes**: every survivor adds its share, also when it has nothing to contribute; fewer than n_min survivors are never opened (neither
function opens them); c is at least the number of survivors who would subtract their own shares; the choice depends on the client's own data
and on released values only; the streams are secret.

**Not covered**: add-remove, because a client that is missing takes its noise share along; clients that lie about their norm or leave out noise
beyond c; who is on the roster and who dropped out, which are public.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, floor, inf, isqrt, nextafter, sqrt
from typing import Literal

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.integer_noise import LARGEST_DEVIATION, IntegerNoise, discrete_gaussian, largest_noise, skellam
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.pool_counts import count_noise_for, false_pass_probability
from secure_fl.privacy.tables import TOTAL_VARIATION

FIELD_LIMIT = 2**19 - 1
"""Largest magnitude of a sum in one field of the secure sum: two signed fields a 40-bit slot."""
_TRIES = 20
SMALLEST_GRID = 16
"""Least deviation of the noise, in grid steps.

Below it Skellam noise costs visibly more than Gaussian, and its tail is not the normal's to three digits.
"""


@dataclass(frozen=True)
class Blocks:
    """One client's vector, or a sum of them, int64.

    Attributes:
        head: `[H]`, opened first: a count for each pool (none when K = 1: the survivors are public), then the adaptive bound's bit.
        shared: `[S]`, the part that all pools share.
        pools: `[K, W]`, opened where the count allows: the pooled part, then the weight where weights are on.
    """

    head: Tensor = field(repr=False)
    shared: Tensor = field(repr=False)
    pools: Tensor = field(repr=False)

    def __add__(self, other: Blocks) -> Blocks:
        return Blocks(self.head + other.head, self.shared + other.shared, self.pools + other.pools)


@dataclass(frozen=True)
class Opened:
    """What the head says.

    Attributes:
        survivors: clients whose vectors are in the sum; public.
        counts: noised members of each pool, float64 `[K]`; exact when K = 1.
        passing: which pools may be opened, bool `[K]`.
        inside: noised share of survivors whose update was within the bound, in [0, 1]; None unless the bound adapts.
    """

    survivors: int
    counts: Tensor = field(repr=False)
    passing: Tensor = field(repr=False)
    inside: float | None


@dataclass(frozen=True)
class ClientLevel:
    """Settings of the mechanism, equal at every client and at whoever opens.

    Attributes:
        pools, pooled, shared: K blocks of `pooled` fields, and `shared` fields that are not one-hot.
        bound: first norm bound C of an update, in the update's units.
        levels: C in grid steps, ⌊sC⌋ for a scale s; it stays when the bound adapts, so every round costs the same.
        noise_multiplier: z; deviation of the certain noise over C.
        roster, n_min, colluders: clients asked; fewest survivors that are opened; survivors whose noise does not count, at least 1.
        kind: family of the noise.
        rounding: "toward_zero" never lengthens a vector. "conditional" is unbiased up to its condition, and charged for its larger bound.
        clamp: largest magnitude of one coordinate in grid steps, to fit a narrower field; None for no clamp beyond the norm bound.
        minimum: a pool is opened, and its sum divided, at this many members or more.
        count_noise: σ_c, deviation of the certain noise on a count, in members; None for the largest that `accepted_false_pass` allows.
        accepted_false_pass: largest accepted probability that a pool of one true member passes, when the whole roster's noise is in.
        weight_noise: σ_w for weights in [0, 1]; None for no weights: every client counts the same.
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
    clamp: int | None = None
    minimum: int = 2
    count_noise: float | None = None
    accepted_false_pass: float = 0.05
    weight_noise: float | None = None
    bit_noise: float | None = None

    def __post_init__(self) -> None:
        for holds, name, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, field=name, value=getattr(self, name), remedy=remedy)
        if self.counts and (found := self.false_pass) > self.accepted_false_pass + 1e-12:
            problem, remedy = f"a pool of one member passes with probability {found:.1%}", "lower it, raise minimum, or raise accepted_false_pass"
            raise PrivacyError(problem, field="count_noise", value=self.count_noise, remedy=remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        noises = (self.count_noise, self.weight_noise, self.bit_noise)
        # fmt: off
        return [
            (self.pools >= 1 and self.pooled >= 1 and self.shared >= 0, "pools", "there must be a block to release", "pools and pooled from 1 on"),
            (0 < self.bound < inf, "bound", "not a finite positive norm", "for example 1.0"),
            (self.levels >= 1, "levels", "the grid has no step below the bound", "for example 2**12"),
            (0 < self.noise_multiplier < inf, "noise_multiplier", "not a finite positive number", "for example 1.0"),
            (self.noise_multiplier * self.levels >= SMALLEST_GRID, "levels", "the grid is too coarse for the noise", "raise levels"),
            (1 <= self.colluders < self.n_min, "colluders", "every client knows its own noise, and one must be honest", "at least 1, below n_min"),
            (self.n_min <= self.roster, "n_min", "more than the roster", "at most the roster"),
            (self.variance <= self.honest * LARGEST_DEVIATION**2, "levels", "a share's noise is too wide to draw", "lower levels, or fitted()"),
            (self.minimum >= 1, "minimum", "not a number of members", "at least 2 for a pool of one to stay closed"),
            (self.clamp is None or self.clamp >= 1, "clamp", "no coordinate could move", "leave it out"),
            (all(noise is None or 0 < noise < inf for noise in noises), "count_noise", "a noise is not finite and positive", "None for the default"),
            (0 < self.accepted_false_pass < 1, "accepted_false_pass", "not a probability within (0, 1)", "0.05"),
        ]
        # fmt: on

    @property
    def honest(self) -> int:
        """Survivors whose noise is certain."""
        return self.n_min - self.colluders

    @property
    def variance(self) -> float:
        """Of the certain noise on every field, in grid steps squared. The whole roster's noise is `roster / honest` times it."""
        return (self.noise_multiplier * self.levels) ** 2

    @property
    def counts(self) -> int:
        """Number of count fields."""
        return self.pools if self.pools > 1 else 0

    @property
    def fields(self) -> int:
        """Length of the whole vector."""
        return self.counts + (self.bit_noise is not None) + self.shared + self.pools * self._width

    @property
    def _width(self) -> int:
        return self.pooled + (self.weight_noise is not None)

    @cached_property
    def count_unit(self) -> int:
        """What one member adds to its pool's count."""
        if not self.counts:
            return 0
        if self.count_noise is not None:
            return ceil(sqrt(self.variance) / self.count_noise)
        every = sqrt(self.variance * self.roster / self.honest)
        noise = count_noise_for(self.minimum, self.accepted_false_pass)
        return ceil((every / noise * (self.minimum - 1) + 0.5) / (self.minimum - 1))

    @property
    def _weight_unit(self) -> int:
        return 0 if self.weight_noise is None else ceil(sqrt(self.variance) / self.weight_noise)

    @property
    def _bit_unit(self) -> int:
        """The bit is sent as plus or minus this: half of a whole unit, so that it moves the sum half as far (Andrew et al. 2021)."""
        return 0 if self.bit_noise is None else ceil(sqrt(self.variance) / (2 * self.bit_noise))

    @property
    def false_pass(self) -> float:
        """Probability that a pool of one true member passes (of none: less), with the noise of the whole roster, the most there can be."""
        every = sqrt(self.variance * self.roster / self.honest)
        return false_pass_probability(every / self.count_unit, self.minimum, steps=self.count_unit) if self.counts else 0.0

    @cached_property
    def square_bound(self) -> int:
        """Largest square of an encoded update's norm. Rounding at random adds up to a step a coordinate, so it is charged for more.

        An unconditioned random rounding of a vector of norm L in d dimensions has a square of L² + d/4 + √(2 ln 1/β)·(L + √d/2) at most with
        probability 1 − β, and (L + √d)² always (Kairouz, Liu, Steinke 2021); here β = e^(-1/2), so that a try succeeds in 39 % or more.
        """
        if self.rounding == "toward_zero":
            return self.levels**2
        d = self.pooled + self.shared
        return floor(min((self.levels + sqrt(d)) ** 2, self.levels**2 + d / 4 + self.levels + sqrt(d) / 2))

    def event(self, releases: int) -> IntegerEvent:
        """What `releases` rounds of a client on the roster cost, charged for the noise of n_min − c.

        With B² the square bound and unit u for the count, w for the weight, h for the bit, the squared zero-out sensitivity is
        B² + u² + w² + h². Replaced, a client stays in its pool: 4B² + w² + 4h²; or changes it: 2(B² + u² + w²) + 4h², and the shared part,
        which is not one-hot, can turn round: 4B² instead of 2B². For integers ‖q‖₁ is at most both ‖q‖₂² and √d·‖q‖₂.
        """
        square, u, w, h = self.square_bound, self.count_unit, self._weight_unit, self._bit_unit
        length = min(float(square), sqrt((self.pooled + self.shared) * square))
        stays = 4 * square + w**2 + 4 * h**2
        moves = (4 if self.shared else 2) * square + 2 * (u**2 + w**2) + 4 * h**2
        several = self.pools > 1
        return IntegerEvent(
            kind=self.kind,
            variance=self.variance,
            l2=nextafter(sqrt(square + u**2 + w**2 + h**2), inf),
            l1=nextafter(length + u + w + h, inf),
            l2_replace=nextafter(sqrt(max(stays, moves) if several else stays), inf),
            l1_replace=nextafter(2 * (length + h) + (2 * (u + w) if several else w), inf),
            parties=self.honest,
            dimension=self.fields,
            releases=releases,
            tv_per_draw=TOTAL_VARIATION,
        )

    @property
    def largest_fields(self) -> tuple[int, int]:
        """Largest magnitudes of one client's fields, its noise aside: outside the head, and in it."""
        coordinate = isqrt(self.square_bound) if self.clamp is None else min(self.clamp, isqrt(self.square_bound))
        return max(coordinate, self._weight_unit), max(self.count_unit, self._bit_unit)

    @cached_property
    def noise_margin(self) -> int:
        """A magnitude that the whole roster's noise passes in no field of a sum, save with probability 2^-40 over all of them."""
        return largest_noise(self.variance * self.roster / self.honest, self.fields)

    @property
    def largest(self) -> int:
        """A magnitude that no field of the sum passes, save with probability 2^-40: every client at its largest in one field, and noise."""
        return self.roster * max(self.largest_fields) + self.noise_margin

    def fitted(self, limit: int = FIELD_LIMIT) -> ClientLevel:
        """The same with the most levels whose sums stay within `limit`. The clamp keeps its share of the bound.

        Raises:
            PrivacyError: not even the coarsest grid fits.
        """
        low = ceil(SMALLEST_GRID / self.noise_multiplier)
        high = min(limit, floor(LARGEST_DEVIATION * sqrt(self.honest) / self.noise_multiplier))
        if self._with_levels(low).largest > limit:
            remedy = "fewer clients, less noise, noisier counts (a larger minimum), or wider fields"
            raise PrivacyError(f"sums would pass {limit} on any grid", field="levels", value=low, remedy=remedy)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._with_levels(middle).largest <= limit else (low, middle - 1)
        return self._with_levels(low)

    def _with_levels(self, levels: int) -> ClientLevel:
        clamp = None if self.clamp is None else max(1, self.clamp * levels // self.levels)
        return replace(self, levels=levels, clamp=clamp)

    def encode(self, update: Tensor, bound: float | None = None, *, weight: float = 1.0, stream: NoiseStream | None = None) -> Tensor:
        """Clip `update` `[shared + pooled]` to `bound` (the first one when None), weigh it, and round it to int64 of the same shape.

        An update with a value that is not finite becomes zero. "conditional" rounding takes its coins from `stream`.

        Raises:
            PrivacyError: wrong length, weight or bound; coins missing; or the integers are longer than charged, which rounding excludes.
        """
        if update.shape != (self.shared + self.pooled,):
            raise PrivacyError("not one update", field="update", value=tuple(update.shape), remedy=f"pass shape [{self.shared + self.pooled}]")
        bound, weight = self.bound if bound is None else bound, self._weight(weight)
        if not 0 < bound < inf:
            raise PrivacyError("not a finite positive norm", field="bound", value=bound, remedy="pass the round's public bound")
        norm = norm_of(update)
        x = torch.zeros(len(update), dtype=torch.float64)
        if norm < inf:
            x = update.double() / max(norm, bound) * (weight * self.levels)
        integers = self._rounded(x, stream)
        if self.clamp is not None:
            integers = integers.clamp(-self.clamp, self.clamp)
        if int(integers.square().sum()) > self.square_bound:
            raise PrivacyError("the integers are longer than charged", field="update", value="its norm", remedy="report this: clipping failed")
        return integers

    def _rounded(self, x: Tensor, stream: NoiseStream | None) -> Tensor:
        if self.rounding == "conditional":
            if stream is None:
                raise PrivacyError("random rounding needs coins", field="stream", value=None, remedy="pass a stream of its own purpose")
            for _ in range(_TRIES):
                tried = (x + torch.from_numpy(stream.uniform(len(x)))).floor().long()
                if int(tried.square().sum()) <= self.square_bound:
                    return tried
        return x.trunc().long()

    def _weight(self, weight: float) -> float:
        if not 0 <= weight <= 1 or (weight != 1 and self.weight_noise is None):
            remedy = "weights within [0, 1], and weight_noise set; without it every client counts the same"
            raise PrivacyError("a weight outside what is charged", field="weight", value="not shown", remedy=remedy)
        return weight

    def blocks(self, integers: Tensor, pool: int, *, inside: bool | None = None, weight: float = 1.0) -> Blocks:
        """The one-hot vector of a client that chose `pool`: its `encode`d update, count, weight and bit, and zeros.

        `inside` says whether the update was within the bound before clipping; needed where the bound adapts.

        Raises:
            PrivacyError: no such pool, or the bit is missing.
        """
        if not 0 <= pool < self.pools:
            raise PrivacyError("no such pool", field="pool", value="not shown", remedy=f"choose among 0..{self.pools - 1}")
        if (inside is None) != (self.bit_noise is None):
            raise PrivacyError("the bit belongs to an adaptive bound", field="inside", value="not shown", remedy="pass it when bit_noise is set")
        made = self.absent()
        if self.counts:
            made.head[pool] = self.count_unit
        if inside is not None:
            made.head[-1] = self._bit_unit if inside else -self._bit_unit
        made.shared[:] = integers[: self.shared]
        made.pools[pool, : self.pooled] = integers[self.shared :]
        if self.weight_noise is not None:
            made.pools[pool, -1] = int(self._weight(weight) * self._weight_unit)
        return made

    def absent(self) -> Blocks:
        """All zeros: what a client without an update contributes, together with its noise share."""
        return self._cut(torch.zeros(self.fields, dtype=torch.int64))

    @cached_property
    def _share(self) -> IntegerNoise:
        variance = self.variance / self.honest
        return skellam(variance) if self.kind == "skellam" else discrete_gaussian(sqrt(variance))

    def share(self, stream: NoiseStream, length: int) -> Tensor:
        """One client's noise on `length` fields, int64: n_min − c such shares add up to `variance`."""
        return torch.from_numpy(self._share.sample(stream, length))

    def noised(self, blocks: Blocks, stream: NoiseStream) -> Blocks:
        """`blocks` plus the client's noise share in every field: what may leave the client, once, under masks and encryption."""
        return blocks + self._cut(self.share(stream, self.fields))

    def _cut(self, flat: Tensor) -> Blocks:
        head, shared, pools = flat.split([self.fields - self.shared - self.pools * self._width, self.shared, self.pools * self._width])
        return Blocks(head, shared, pools.view(self.pools, self._width))

    def open_head(self, head: Tensor, survivors: int) -> Opened:
        """Counts and bit from the summed head `[H]`; they decide which pools may be opened.

        Raises:
            PrivacyError: fewer survivors than n_min: the noise charged for may not be there. Or more than the roster.
        """
        self._check(survivors)
        inside = None
        if self.bit_noise is not None:
            inside = min(1.0, max(0.0, 0.5 + float(head[-1]) / (2 * self._bit_unit * survivors)))
        if not self.counts:
            return Opened(survivors, torch.tensor([float(survivors)], dtype=torch.float64), torch.tensor([True]), inside)
        counts = head[: self.counts]
        return Opened(survivors, counts.double() / self.count_unit, counts >= self.minimum * self.count_unit, inside)

    def open_pools(self, total: Blocks, opened: Opened, bound: float | None = None) -> tuple[Tensor, Tensor]:
        """Mean changes, float64: of the shared part `[S]`, by the public survivors, and of every pool `[K, pooled]`.

        A pool's sum is divided by its noised count (or weight), at least `minimum`. Pools that do not pass do not change; what `total.pools`
        holds for them is not read.
        """
        self._check(opened.survivors)
        step = (self.bound if bound is None else bound) / self.levels
        sums = total.pools[:, : self.pooled].double() * step
        divisor = opened.counts
        if self.weight_noise is not None:
            divisor = total.pools[:, -1].double() / self._weight_unit
        if self.counts or self.weight_noise is not None:
            divisor = divisor.clamp_min(self.minimum)
        means = torch.where(opened.passing[:, None], sums / divisor[:, None], torch.zeros_like(sums))
        return total.shared.double() * step / opened.survivors, means

    def _check(self, survivors: int) -> None:
        if not self.n_min <= survivors <= self.roster:
            remedy = f"open only sums of {self.n_min} to {self.roster} clients; drop the round, or lower n_min before it begins"
            raise PrivacyError("the sum must not be opened", field="survivors", value=survivors, remedy=remedy)


def norm_of(update: Tensor) -> float:
    """Euclidean norm in float64, safe from overflow; inf when a value is not finite. `inside` is `norm_of(update) <= bound`."""
    x = update.double()
    peak = float(x.abs().max()) if len(x) else 0.0
    if not peak < inf:
        return inf
    return peak * float((x / peak).norm()) if peak > 0 else 0.0
