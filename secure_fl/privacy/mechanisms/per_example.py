"""Differentially private SGD where every loss belongs to one example: heads, fine-tuning,
masked reconstruction.

One step: a Poisson sample; each example's gradient clipped to C; the sum noised with deviation σ·C
and divided by the public constant q·n (Abadi et al. 2016, arXiv 1607.00133).

With adaptive clipping C follows a quantile of the gradients' norms (Andrew et al. 2021, arXiv
1905.03871). What that needs to know, how many norms are within C, is a release of its own, a count
with noise of deviation σ_b. An example adds from -½ to ½ to it: half of log(C/‖g‖) in units of log
1.25, cut to ±½. A step at C would not do: a batch of another size is summed in another order, and
where many norms are alike, as at the start of training, one example more would flip the bits of
all. On the ramp, from C/1.25 to 1.25·C, a relative error of 2⁻²⁰ in every other norm (four times
what was measured) moves the count by 2.2·2⁻²⁰ an example; m, twice that for all n, is charged: one
example moves the count by (1 + m)/2.

Both releases read the same sample, so the step is one Gaussian of σ = (σ_z⁻² + (2σ_b/(1 +
m))⁻²)^(-1/2) if gradients get the slightly larger σ_z; σ is what was asked for and what is charged.
(Opacus before 1.6 charged σ_z, which is less than was spent.)

The ramp is even in log ‖g‖ - log C, so C settles where the distribution F of log ‖g‖, averaged over
w = log 1.25 to both sides, has the quantile. That is off by w²F''/6: nothing at a symmetric
distribution's median, and elsewhere, for a normal one of deviation s, 0.002/s² at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, log, sqrt
from typing import Self

from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.unit_objectives import TargetObjective, UnitObjective, has_units
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms.mechanism import Labelled, check_settings, flat, write_gradients
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import draw_examples
from secure_fl.privacy.unit_gradients import ClippedSum, Method, clipped_sum

_COUNT_NOISE_SHARE = 20
"""The expected batch over this is the count's noise: the quantile is known to 0.05 a step."""
_RAMP = log(1.25)
"""Half of the ramp's width, in log ‖g‖."""
_ROUNDING = 2.0**-20
"""Relative difference allowed for between norms of one example in two batches. In float32 2.1·10⁻⁷
was seen at most, over linear and convolutional models, ResNet-18, and batches from 1 to 257."""


@dataclass
class AdaptiveBound:
    """A clip bound that follows a quantile of the norms. The one thing of a mechanism that changes;
    it changes by noised counts only.

    Attributes:
        bound: C, now.
        quantile: share of gradients that are to stay unclipped.
        rate: C is multiplied by exp(−rate · (share within C − quantile)) after each step.
        count_noise: σ_b in examples; None for a twentieth of the expected batch.

    Raises:
        PrivacyError: a setting makes no sense.
    """

    bound: float
    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            remedy = "use 0.5, the median"
            raise PrivacyError("no quantile between 0 and 1", "quantile", self.quantile, remedy)
        if not (isfinite(self.rate) and self.rate > 0):
            raise PrivacyError("not positive and finite", "rate", self.rate, "use 0.2")

    def bits(self, square_norms: Tensor) -> Tensor:
        """Each norm's part of the count, float64 `[U]`: ½ to C/1.25, -½ from 1.25·C and for NaN."""
        within = (2 * log(self.bound) - square_norms.double().log()) / (4 * _RAMP)
        return within.nan_to_num(nan=-0.5).clamp(-0.5, 0.5)

    def follow(self, noised_count: float, expected_units: float) -> None:
        """Move C, given the noised sum of the bits."""
        within = 0.5 + noised_count / expected_units
        self.bound *= exp(-self.rate * (min(max(within, 0.0), 1.0) - self.quantile))


@dataclass(frozen=True, eq=False)
class PerExample:
    """Poisson-sampled DP-SGD.

    **Guarantee**: `event` bounds what `gradients` reveals of one example, under each of
    `adjacencies`; the count of adaptive clipping is included.

    **Assumes**: a unit is one example; the model treats rows by themselves; an example's views and
    dropout depend on its own coins, as `train_privately` gives them; sampling coins are secret;
    `examples` is a public constant.

    **Not covered**: float rounding of sums and noise (Mironov 2012), beyond what the count is
    charged for; a choice of the settings that looked at the data.

    Attributes:
        objective: `PER_EXAMPLE`, without a statistic; with targets (`CrossEntropy`,
            `MaskedReconstruction`) views are `Labelled`.
        examples: n.
        sampling_rate: q.
        noise_multiplier: σ, of the whole step.
        clip: C, or one that adapts.
        method: of clipping.

    Raises:
        PrivacyError: the objective couples examples, or a setting makes no sense.
    """

    objective: UnitObjective | TargetObjective
    examples: int
    sampling_rate: float
    noise_multiplier: float
    clip: float | AdaptiveBound = 1.0
    method: Method = "ghost"

    name = "per-example"
    adjacencies = frozenset(Adjacency)

    def __post_init__(self) -> None:
        check_settings(self.examples, self.sampling_rate, self.noise_multiplier, self.bound)
        if self.objective.coupling is not Coupling.PER_EXAMPLE:
            problem = "couples examples: clipping each does not bound it"
            remedy = 'use mechanism = "released-statistics" or "group"'
            raise PrivacyError(problem, "objective", self.objective.coupling.name, remedy)
        if getattr(self.objective, "statistic", None) is not None:
            remedy = 'use mechanism = "released-statistics"'
            raise PrivacyError("needs a statistic", "objective", "statistic", remedy)
        if self.count_noise is not None and not (
            isfinite(self.count_noise) and self.count_noise > self.noise_multiplier * self._bit
        ):
            problem = "the count alone would cost more than the step may"
            remedy = "use more than (1 + m)/2 of the noise multiplier, or a fixed clip"
            raise PrivacyError(problem, "count_noise", self.count_noise, remedy)

    @property
    def bound(self) -> float:
        """The bound C as it is now."""
        return self.clip.bound if isinstance(self.clip, AdaptiveBound) else self.clip

    @property
    def count_noise(self) -> float | None:
        """The deviation σ_b of the count's noise, where clipping adapts; None elsewhere."""
        if not isinstance(self.clip, AdaptiveBound):
            return None
        least = max(self.expected_units / _COUNT_NOISE_SHARE, 2 * self._bit * self.noise_multiplier)
        return self.clip.count_noise if self.clip.count_noise is not None else least

    @property
    def _bit(self) -> float:
        """(1 + m)/2: what one example moves the count by, the others' rounding included."""
        return 0.5 + self.examples * _ROUNDING / (2 * _RAMP)

    @property
    def gradient_noise(self) -> float:
        """σ_z in units of C: (σ⁻² − (2σ_b/(1 + m))⁻²)^(-1/2), or σ where clipping is fixed."""
        if self.count_noise is None:
            return self.noise_multiplier
        return 1 / sqrt(self.noise_multiplier**-2 - (self.count_noise / self._bit) ** -2)

    @property
    def expected_units(self) -> float:
        """q·n, what sums are divided by."""
        return self.sampling_rate * self.examples

    def event(self, steps: int) -> GaussianEvent:
        return GaussianEvent(self.noise_multiplier, self.sampling_rate, steps)

    def at(self, step: int) -> Self:
        return self

    def draw(self, stream: NoiseStream) -> Tensor:
        return draw_examples(self.examples, self.sampling_rate, stream)[:, None]

    def gradients(self, model: nn.Module, views: Tensor | Labelled, stream: NoiseStream) -> None:
        summed = self._sum(model, views)
        deviation = self.gradient_noise * self.bound
        write_gradients(model, summed.gradients, deviation, self.expected_units, stream)
        if isinstance(self.clip, AdaptiveBound) and self.count_noise is not None:
            noise = stream.gaussian((1,), self.count_noise)
            self.clip.follow(float(self._count(self.clip, summed) + noise), self.expected_units)

    def released_sums(self, model: nn.Module, views: Tensor | Labelled) -> list[Tensor]:
        """[gradients], and [gradients, count] where clipping adapts."""
        summed = self._sum(model, views)
        count = [self._count(self.clip, summed)] if isinstance(self.clip, AdaptiveBound) else []
        return [flat(summed.gradients), *count]

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        twice = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
        count = [twice * self._bit] if isinstance(self.clip, AdaptiveBound) else []
        return [twice * self.bound, *count]

    def _count(self, clip: AdaptiveBound, summed: ClippedSum) -> Tensor:
        """The sum of what each norm adds to the count, `[1]`."""
        return clip.bits(summed.square_norms).sum()[None].cpu()

    def _sum(self, model: nn.Module, views: Tensor | Labelled) -> ClippedSum:
        rows, targets = views if isinstance(views, Labelled) else (views, None)

        def losses(h: Tensor, z: Tensor) -> Tensor:
            if has_units(self.objective):
                return self.objective.unit_losses(h, z, None)
            if targets is None:
                problem, remedy = "the objective needs targets", "pass Labelled(rows, targets)"
                raise PrivacyError(problem, "views", ("U", *rows.shape[1:]), remedy)
            return self.objective.target_losses(z, targets)

        flat_rows, method = rows.flatten(0, 1), self.method
        return clipped_sum(model, flat_rows, rows.shape[1], losses, self.bound, method=method)
