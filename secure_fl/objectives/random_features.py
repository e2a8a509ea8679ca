"""The Gaussian kernel as an inner product of unit vectors, so that uniformity needs a mean of the
examples and no pairs.

φ(z) = m^(-1/2) [cos Wz, sin Wz] with the m rows of W from N(0, 2t·I). Then ‖φ(z)‖ = 1 exactly,
since cos² + sin² = 1 in each pair, and E_W φ(u)·φ(v) = exp(−t‖u − v‖²), whose error falls as
m^(-1/2). The usual random phases, √2 cos(Wz + b), need twice the norm for the same kernel, and so
twice the noise. Source: Rahimi & Recht 2007.

The map is drawn anew in every step. Against one that stays, a network learns to spread its
embeddings over these features rather than over the sphere; a fresh map is an unbiased estimate of
the same kernel in every step, and no more can be learned of it. It costs no privacy: a map follows
from a public seed and the step's number, and ‖φ(z)‖ = 1 for every W.

Suffixes: U units, R rows (views) of a unit, D dimensions, M pairs of features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt

import torch
from torch import Tensor

from secure_fl.errors import ObjectiveError
from secure_fl.seeds import generator_of
from secure_fl_kernels.reference import normalize

PAIRS = 512
"""Pairs do not add noise to a gradient: φ has norm 1 for any. 512 keep the kernel to about 0.03."""


@dataclass(frozen=True, eq=False)
class RandomFeatures:
    """Features of the kernel exp(−t‖u − v‖²).

    Attributes:
        frequencies: W, `[M, D]`; public, since noise hides the examples and not the map.
        t: the kernel's scale.
        seed: that W was drawn from.
    """

    frequencies: Tensor = field(repr=False)
    t: float
    seed: int

    @classmethod
    def draw(
        cls, dimension: int, t: float, seed: int, pairs: int = PAIRS, step: int = 0
    ) -> RandomFeatures:
        """Frequencies from a public seed, for one step.

        Raises:
            ObjectiveError: no pairs are asked for.
        """
        if pairs < 1:
            raise ObjectiveError("no features", field="pairs", value=pairs, remedy=f"use {PAIRS}")
        generator = generator_of(seed, "random-features", step)
        drawn = torch.randn(pairs, dimension, generator=generator, dtype=torch.float64)
        return cls(drawn * (2 * t) ** 0.5, t, seed)

    def at(self, step: int) -> RandomFeatures:
        """As many frequencies from the same seed, for another step."""
        pairs, dimension = self.frequencies.shape
        return RandomFeatures.draw(dimension, self.t, self.seed, pairs, step)

    def __call__(self, z: Tensor) -> Tensor:
        """φ of the unit vectors of `[..., D]`: `[..., 2M]`, of norm 1 but for rounding."""
        frequencies = self.frequencies.to(z)
        angles = normalize(z) @ frequencies.T
        return torch.cat([angles.cos(), angles.sin()], -1) / sqrt(len(frequencies))


@dataclass(frozen=True, eq=False)
class KernelMean:
    """The statistic of uniformity: the mean feature vector, whose squared length is the mean of the
    kernel over pairs.

    After its release it is a vector `[2M + 2]`: the mean features μ, the kernel's mean k over
    distinct pairs, and 1/n with n the public expected number of units.
    """

    features: RandomFeatures

    def at(self, step: int) -> KernelMean:
        """With the features of a step."""
        return KernelMean(self.features.at(step))

    @property
    def dimension(self) -> int:
        return self.features.frequencies.shape[1]

    @property
    def size(self) -> int:
        return 2 * self.features.frequencies.shape[0]

    def contributions(self, z_URD: Tensor) -> Tensor:
        """Mean of φ over the views, `[U, 2M]`: both views share one unit of norm."""
        return self.features(z_URD).mean(1)

    def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
        """The mean, and from it the kernel's mean over distinct pairs, by post-processing alone.

        ‖noised mean‖² is too large by the noise's own square, size·deviation²/n², and by the 1/n
        that each unit adds with itself; both are public. No distribution on the sphere has a kernel
        mean below exp(−2t) (Jensen: E exp(2t u·v) ≥ exp(2t‖E u‖²) ≥ 1), so that is the floor.
        """
        mean = noised_sum / expected_units
        own = 1 / expected_units + self.size * (deviation / expected_units) ** 2
        kernel = (mean.square().sum() - own).clamp(min=exp(-2 * self.features.t))
        return torch.cat([mean, kernel[None], torch.full_like(kernel, 1 / expected_units)[None]])

    def unit_losses(self, z_URD: Tensor, released: Tensor) -> Tensor:
        """`[U]`: losses whose mean has the gradient of log (kernel mean over distinct pairs), all
        else held fixed.

        With c_u a unit's contribution and μ the released mean: 2 c_u·(μ − c_u/n)/k, where the
        unit's own part of μ is taken out (it would push the two views of one example apart) and k
        is the released kernel mean.
        """
        mean, kernel, share = released[:-2], released[-2], released[-1]
        contribution = self.contributions(z_URD)
        others = mean - contribution.detach() * share
        return 2 * (contribution * others).sum(1) / kernel
