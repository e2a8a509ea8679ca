"""A sum over the examples of all clients, opened once, under the noise of all clients together.

Each example adds a vector of whole numbers no longer than a bound. A client adds up its examples'
exactly, adds its share of integer noise, and sends that under masks: nobody is trusted with the sum
before it is noised, and the noise is that of one sum, not of one for each client.

**Guarantee.** For the examples of a client, their number public, the opened integers are one
release of `ExampleSum.event`: they move by at most `levels` in the 2-norm when an example's vector
becomes zero, by twice that when it becomes another, and the noise of the n_min − c honest survivors
that are certain alone has the variance stated. The bound holds for the very integers that are sent:
a longer vector is refused before anything is noised.

*Proof.* With q_j the vector of example j, a client's sum is Σ_j q_j, in arithmetic that does not
round; the others' sums do not depend on j. So the whole sum moves by q_j, of norm at most L, under
zero-out, and by q_j − q_j', of norm at most 2L, under replace-one. In the 1-norm, integers have
‖q‖₁ ≤ ‖q‖₂², and ‖q‖₁ ≤ √d·‖q‖₂. The last field counts examples, empty ones too: it is public
and does not move. All else, division by the count and what is computed of the quotient, is
post-processing.

**Assumes.** An example's vector follows from that example and released or public values alone;
every survivor adds its share; fewer than n_min survivors are never opened (`opened` opens them
neither); c is at least the number of survivors who would subtract their own shares; a noised sum is
stored before it is sent, and sent again, never noised again.

**Not covered.** Who reads a single upload: one share of the noise protects little
(`IntegerEvent.own_share`). How many examples a client has. Add-remove: a count that moves would
need a bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import floor, inf, isqrt, sqrt
from typing import Literal

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.client_level import SMALLEST_GRID
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.integer_noise import IntegerNoise, discrete_gaussian, skellam
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.noise_tables import TOTAL_VARIATION
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.noise_bounds import largest_noise

EDGE = FieldLayout.whole().edge
"""The largest magnitude of a sum in one field, which fills a slot of the secure sum."""
WIDEST_SHARE = 2**14
"""Most steps of a share's deviation: its table is made in a second or two, and a finer grid under
so much noise shows nothing more.
"""


@dataclass(frozen=True)
class Shares:
    """Who adds the noise, and whose is counted on.

    Attributes:
        roster, n_min, colluders: clients asked; fewest survivors that are opened; survivors whose
            noise does not count, at least 1.
        kind: family of the noise.

    Raises:
        PrivacyError: no honest client is left, or there are not so many clients.
    """

    roster: int
    n_min: int
    colluders: int = 1
    kind: Literal["skellam", "discrete_gaussian"] = "skellam"

    def __post_init__(self) -> None:
        if not 1 <= self.colluders < self.n_min:
            problem, remedy = "no honest client is left beside them", "at least 1, below n_min"
            raise PrivacyError(problem, "colluders", self.colluders, remedy)
        if self.n_min > self.roster:
            remedy = f"at most {self.roster}"
            raise PrivacyError("more than the roster", "n_min", self.n_min, remedy)

    @property
    def honest(self) -> int:
        """Survivors whose noise is certain."""
        return self.n_min - self.colluders


@dataclass(frozen=True)
class ExampleSum:
    """Settings of one such sum, equal at every client and at whoever opens.

    Attributes:
        width: d, fields of an example's vector.
        levels: L, the longest that a vector may be, in grid steps.
        shares: whose noise hides it; None where none does, and the secure sum alone hides clients.
        noise_multiplier: z, deviation of the certain noise over L; not read without shares.
        roster: clients that are asked.

    Raises:
        PrivacyError: a setting is out of range, or a share is too wide to draw.
    """

    width: int
    levels: int
    roster: int
    shares: Shares | None = None
    noise_multiplier: float = 0.0

    def __post_init__(self) -> None:
        for holds, name, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, name, getattr(self, name), remedy)
        if self.most_examples < 1:
            problem, remedy = "their sums could overflow a field", "fewer clients, or fewer levels"
            raise PrivacyError(problem, "roster", self.roster, remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        noised, z = self.shares is not None, self.noise_multiplier
        # fmt: off
        return [
            (self.width >= 1, "width", "nothing to sum", "1 or more"),
            (self.levels >= 1, "levels", "the grid has no step below the bound", "such as 2**14"),
            (not noised or 0 < z < inf, "noise_multiplier", "not a finite positive number", "1.0"),
            (not noised or z * self.levels >= SMALLEST_GRID, "levels",
             "the grid is too coarse for the noise", "raise levels, or the noise"),
            (not noised or self._of_one <= WIDEST_SHARE, "levels",
             "a share's noise is too wide to draw", "lower levels"),
        ]
        # fmt: on

    @classmethod
    def fitted(cls, width: int, levels: int, shares: Shares, noise_multiplier: float) -> ExampleSum:
        """With so many levels, or the most whose shares can be drawn."""
        widest = floor(WIDEST_SHARE * sqrt(shares.honest) / noise_multiplier)
        return cls(width, max(1, min(levels, widest)), shares.roster, shares, noise_multiplier)

    @property
    def fields(self) -> int:
        """Fields of a client's sum: the vector's, and the number of examples in `levels` each."""
        return self.width + 1

    @property
    def variance(self) -> float:
        """Variance of the certain noise on every field, in squared steps; 0 without noise."""
        return 0.0 if self.shares is None else (self.noise_multiplier * self.levels) ** 2

    @property
    def _of_one(self) -> float:
        """Deviation of one client's share, in steps."""
        return 0.0 if self.shares is None else sqrt(self.variance / self.shares.honest)

    def deviation(self, survivors: int) -> float:
        """Deviation of the noise on a field of a sum over so many clients, in steps."""
        return self._of_one * sqrt(survivors)

    @cached_property
    def noise_margin(self) -> int:
        """A magnitude that the whole roster's noise passes in no field, save with probability
        2^-40 over all of them.
        """
        return largest_noise(self.deviation(self.roster), self.fields) if self.shares else 0

    @cached_property
    def bound(self) -> int:
        """Largest magnitude of a client's field, its noise aside: so that no sum passes `EDGE`."""
        return (EDGE - self.noise_margin) // self.roster

    @property
    def most_examples(self) -> int:
        """Examples that a client may have, so that no field of its sum passes `bound`."""
        return self.bound // self.levels

    def check_examples(self, examples: int) -> None:
        """Refuse a client of so many examples, which everybody knows. Raises PrivacyError: there
        are none, or a field of their sum could overflow.
        """
        if not 1 <= examples <= self.most_examples:
            problem = "no examples" if examples < 1 else "a sum of so many could overflow a field"
            remedy = f"1 to {self.most_examples} examples a client"
            raise PrivacyError(problem, "examples", examples, remedy)

    def event(self) -> IntegerEvent:
        """What the release costs an example, charged for the noise of n_min − c. Raises
        PrivacyError: there is no noise, and nothing to charge.
        """
        if self.shares is None:
            remedy = 'charge nothing under privacy.unit = "none"'
            raise PrivacyError("this sum carries no noise", "shares", None, remedy)
        l1 = min(float(self.levels**2), float(isqrt(self.width * self.levels**2) + 1))
        return IntegerEvent(
            kind=self.shares.kind,
            variance=self.variance,
            l2=float(self.levels),
            l1=l1,
            l2_replace=2.0 * self.levels,
            l1_replace=2 * l1,
            parties=self.shares.honest,
            dimension=self.fields,
            releases=1,
            tv_per_draw=TOTAL_VARIATION,
        )

    def total(self, parts: Iterable[tuple[Tensor, Tensor]], examples: int) -> Tensor:
        """One client's sum, int64 `[fields]`, without noise.

        Args:
            parts: of disjoint groups of examples, the sum of their vectors `[width]`, and the
                squared norm of each, both float64 or int64 and whole.
            examples: the client's public number of examples.

        Raises:
            PrivacyError: more examples than a field holds, or a vector longer than charged, which
                clipping excludes.
        """
        self.check_examples(examples)
        found, seen = torch.zeros(self.fields, dtype=torch.int64), 0
        for vector, squares in parts:
            if len(squares) and int(squares.max()) > self.levels**2:
                problem, remedy = "an example adds more than charged", "report this: a clip failed"
                raise PrivacyError(problem, "example", "its norm", remedy)
            found[:-1] += vector.long()
            seen += len(squares)
        if seen > examples:
            remedy = "pass each example once"
            raise PrivacyError("more than the client has", "examples", "not shown", remedy)
        found[-1] = examples * self.levels
        return found

    @cached_property
    def _share(self) -> IntegerNoise:
        assert self.shares is not None
        if self.shares.kind == "skellam":
            return skellam(self._of_one**2)
        return discrete_gaussian(self._of_one)

    def noised(self, total: Tensor, stream: NoiseStream) -> Tensor:
        """`total` plus the client's share of the noise in every field: what may leave the client,
        once, under masks.
        """
        self.event()
        return total + torch.from_numpy(self._share.sample(stream, self.fields))

    def opened(self, total: Tensor, survivors: int) -> Opened:
        """What an opened sum `[fields]` says. Raises PrivacyError: fewer survivors than the noise
        was made for, or more than the roster.
        """
        least = 1 if self.shares is None else self.shares.n_min
        if not least <= survivors <= self.roster:
            remedy = f"open only sums of {least} to {self.roster} clients"
            raise PrivacyError("the sum must not be opened", "survivors", survivors, remedy)
        examples = max(1, round(float(total[-1]) / self.levels))
        mean = total[:-1].double() / self.levels / examples
        return Opened(mean, examples, self.deviation(survivors) / self.levels / examples)


@dataclass(frozen=True)
class Opened:
    """What a sum said.

    Attributes:
        mean: of the examples' vectors, in units of the bound, float64 `[width]`.
        examples: how many they are, as far as the noise lets tell.
        deviation: of the noise on a field of the mean, in units of the bound.
    """

    mean: Tensor = field(repr=False)
    examples: int
    deviation: float
