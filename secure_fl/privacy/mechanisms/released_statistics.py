"""Contrastive training whose examples meet in a small statistic only: release that with noise, then
clip each example's gradient.

One step over a Poisson sample S of the public index set:

1. every example's contribution to the statistic has norm at most 1, both views together; their sum
   gets noise of deviation σ₁;
2. with the noised statistic as a constant, an example's loss depends on itself alone, and so does
   its gradient, clipped to C;
3. the sum of these gets noise of deviation σ₂·C; both sums are divided by the public constant q·n.

Given the other examples' coins, (statistic, gradient sum | statistic) is an adaptive composition of
two Gaussian mechanisms, with shifts of at most 1/σ₁ and 1/σ₂ deviations, which is no worse than one
Gaussian of μ² = σ₁⁻² + σ₂⁻². One map takes that Gaussian's pair to ours, hence also the two
mixtures of "drawn" and "not drawn". So a step costs one Poisson-subsampled Gaussian with noise
multiplier σ = (σ₁⁻² + σ₂⁻²)^(-1/2), and the split of σ into the two is free.

Which statistic it is may change from step to step, as long as the step's number and a public seed
say how: contributions have norm 1 at most in each, and steps compose adaptively anyway.

Replacing one example compares two contributions, both within those bounds. For the hockey-stick
divergence of the two mixtures, f(x, y) = (1 − q + q·x − e^ε(1 − q + q·y))₊ of the likelihood ratios
x, y is convex with ∂²f/∂x∂y ≤ 0. The first means that full length is worst, the second (Plackett's
identity) that opposite directions are, at every stage whatever came before: the two points ±1 of
one Gaussian, which the replace-one account of a Poisson-subsampled Gaussian charges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.unit_objectives import DrawnAnew, Statistic, UnitObjective
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms.mechanism import check_settings, flat, write_gradients
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import draw_examples
from secure_fl.privacy.unit_gradients import ClippedSum, Method, clipped_sum
from secure_fl_kernels import per_sample

STATISTIC_SHARE = 0.1
"""Of 1/σ². In the trials of spectral contrastive at ε = 2 and 8 a tenth was enough: the statistic
is a mean over the whole batch.
"""
WIDEST = 64
"""Of z. The noise in a second moment grows as D^1.5 beside its norm: σ₁·D^1.5/(√2·batch)."""

_Release = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ReleasedStatistics:
    """Poisson-sampled steps with a released statistic.

    **Guarantee**: `event` bounds what `gradients` reveals of one example, under each of
    `adjacencies`; the statistic is included.

    **Assumes**: a unit is one example with all its views; the model treats rows by themselves; an
    example's views and dropout depend on its own coins, as `train_privately` gives them; sampling
    coins are secret; `examples` is a public constant, also under add-remove, where it is a bound
    that sums are divided by and not the true number.

    **Not covered**: float rounding of sums and noise (Mironov 2012), which a model makes large
    whose outputs z are themselves no longer than rounding errors, since they are brought to unit
    length (below 10⁻¹² to zero); losses and norms seen during training, which go nowhere.

    Attributes:
        objective: with a statistic, and `PER_EXAMPLE` once that is released.
        examples: n.
        sampling_rate: q.
        noise_multiplier: σ, of the whole step.
        bound: C.
        statistic_share: of 1/σ² that goes to the statistic.
        widest: largest width of z.
        method: of clipping.

    Raises:
        PrivacyError: the objective is coupled beyond its statistic or has none, z is too wide, or a
            setting makes no sense.
    """

    objective: UnitObjective
    examples: int
    sampling_rate: float
    noise_multiplier: float
    bound: float = 1.0
    statistic_share: float = STATISTIC_SHARE
    widest: int = WIDEST
    method: Method = "ghost"

    name = "released-statistics"
    adjacencies = frozenset(Adjacency)

    def __post_init__(self) -> None:
        check_settings(self.examples, self.sampling_rate, self.noise_multiplier, self.bound)
        if self.objective.coupling is not Coupling.PER_EXAMPLE:
            problem = "couples examples beyond its statistic"
            remedy = 'use mechanism = "group", or examples that meet in a statistic only'
            raise PrivacyError(problem, "objective", self.objective.coupling.name, remedy)
        if getattr(self.objective, "statistic", None) is None:
            remedy = 'use mechanism = "per-example"'
            raise PrivacyError("has no statistic", "objective", None, remedy)
        if not 0 < self.statistic_share < 1:
            problem = "leaves one release without noise"
            remedy = f"use a share between 0 and 1, such as {STATISTIC_SHARE}"
            raise PrivacyError(problem, "statistic_share", self.statistic_share, remedy)
        if (dimension := self._statistic.dimension) > self.widest:
            problem = "z is too wide for a released statistic"
            remedy = f"set model.embedding = {self.widest} or less: noise outgrows its width"
            raise PrivacyError(problem, "model.embedding", dimension, remedy)

    @property
    def _statistic(self) -> Statistic:
        assert self.objective.statistic is not None
        return self.objective.statistic

    @property
    def statistic_noise(self) -> float:
        """σ₁ = σ/√share: deviation of the noise in each coordinate of the statistic."""
        return self.noise_multiplier / sqrt(self.statistic_share)

    @property
    def gradient_noise(self) -> float:
        """σ₂ = σ/√(1 − share), in units of C."""
        return self.noise_multiplier / sqrt(1 - self.statistic_share)

    @property
    def expected_units(self) -> float:
        """q·n, what both sums are divided by."""
        return self.sampling_rate * self.examples

    def event(self, steps: int) -> GaussianEvent:
        return GaussianEvent(self.noise_multiplier, self.sampling_rate, steps)

    def at(self, step: int) -> Self:
        objective = self.objective
        return (
            replace(self, objective=objective.at(step))
            if isinstance(objective, DrawnAnew)
            else self
        )

    def draw(self, stream: NoiseStream) -> Tensor:
        return draw_examples(self.examples, self.sampling_rate, stream)[:, None]

    def gradients(self, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        def release(total: Tensor) -> Tensor:
            return total + stream.gaussian(total.shape, self.statistic_noise).to(total)

        summed = self._sum(model, views, release)
        deviation = self.gradient_noise * self.bound
        write_gradients(model, summed.gradients, deviation, self.expected_units, stream)

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        """[statistic, gradients]; the second at one released value, as in its proof."""
        seen = [torch.zeros(self._statistic.size)]

        def release(total: Tensor) -> Tensor:
            seen[0] = total
            return some_value(total) * self.expected_units

        gradients = self._sum(model, views, release).gradients
        return [seen[0], flat(gradients)]

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        twice = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
        return [twice, twice * self.bound]

    def _sum(self, model: nn.Module, views: Tensor, release: _Release) -> ClippedSum:
        """The statistic is released between the forward pass and the losses of one graph."""
        statistic, released = self._statistic, list[Tensor]()

        def losses(h: Tensor, z: Tensor) -> Tensor:
            # once, from the outputs as they are: losses are looked at again with some of
            # them replaced
            if not released:
                total = release(statistic_sum(statistic, z))
                released.append(statistic.mean(total, self.expected_units, self.statistic_noise))
            return self.objective.unit_losses(h, z, released[0])

        rows, method = views.flatten(0, 1), self.method
        return clipped_sum(model, rows, views.shape[1], losses, self.bound, method=method)


@torch.no_grad()
def statistic_sum(statistic: Statistic, z: Tensor) -> Tensor:
    """Sum over units of `z` `[U, R, D]` of contributions, each cut to norm 1; broken ones 0."""
    rows = statistic.contributions(z.detach())
    return per_sample.clip_and_sum(rows, per_sample.square_norms(rows), 1.0)


def some_value(like: Tensor) -> Tensor:
    """An arbitrary mean that a statistic might be released as: norm ½, in no special direction."""
    places = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    direction = places.square().cos()
    half: Tensor = direction / (2 * direction.norm())
    return half.to(like).view_as(like)
