"""The private sketch start: what a client's examples look like on average, released once at example
level and reused.

An example is a short vector: its pooled values, or its embedding. Two releases a client. First the
mean of its examples, each at unit length, very noisy; averaged over clients (in a secure sum) it is
the public centre ḡ. Then the sketch: every vector is centred by ḡ, projected to a few public
directions and brought to unit length again, and the mean of these is released. Centring pays
because length is what noise is charged for: vectors of one kind point much the same way, and of a
unit vector little is left to tell groups apart.

With labels, each projected vector is multiplied (outer product) by its label's code: a public unit
vector whose first coordinate is the same for all labels, so that a sketch holds the plain one
beside what tells labels apart. A part for each label would hold the same signal in more
coordinates, each with noise, and little of the plain one: `bench/private_sketch.py` measures both.

Where clients hold different labels, the mean of all says above all which. Then `by_label` gives
each label a part of its own, and a number beside it: what a client has of a label is divided by how
much of it there is, and clients are compared by labels that both have (`parts`).
Everything computed from the two releases afterwards, such as every round of k-means, is free.

**Guarantee**: for the n public example slots of a client, each release is one Gaussian mechanism:
its sum moves by at most 1 under zero-out and 2 under replace-one, against noise of σ₁ and σ₂ with
σ₁⁻² + σ₂⁻² = noise_multiplier⁻². The released values are integers over a fixed power of two: a sum
of integer vectors plus a rounded normal deviate drawn without it. As rounding to integers commutes
with adding integers, this is post-processing of the real Gaussian mechanism, and no low bit of a
floating-point sum leaves.

*Proof of the bound.* A release is Σ_j f(x_j; public)/n + noise/n, where f depends on example j's
own vector (and label) and on public values only: projection, codes, and ḡ, which was released
before, so that the pair is an adaptive composition. f is zero or has length at most 1: a unit
vector, one lengthened by a number to unit length again, or the outer product of such a vector and
another, shrunk toward zero coordinate by coordinate. An empty slot
contributes zero, not minus ḡ, and n is public. So zero-out moves the sum by ‖f‖ ≤ 1, and
replace-one by ‖f − f'‖ ≤ 2, whatever ḡ is.

**Assumes**: an example's vector follows from that example alone: pooling does, and an encoder must
treat each row by itself (eval mode, no batch statistics) and be public or released before; n and
the number of labels are public; both streams are secret and used once; a noised sketch is stored
and reused, never made a second time.

**Not covered**: other clients' members (each client pays for its own examples); whether a client
takes part; what the sum hides, as a release is protected by its own noise from whoever sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf, sqrt
from typing import Self

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_for
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.noise import NoiseStream
from secure_fl.seeds import derive_seed
from secure_fl_kernels.reference import normalize

GRID = 2**20
"""Steps in a length of 1. Shrinking toward the grid costs at most a millionth a coordinate."""
_INSIDE = GRID * (1 - 2.0**-30)
"""A unit vector's length before it is cut: rounding cannot take it past `GRID`."""


_PLAIN, _CODE, _TRIED = 0.35, 3, 200
"""Of a label's code: its first coordinate, the same for all labels; how many others there are at
most; draws of which the best spread is taken.
"""
_COUNT = 0.37
"""Of an example's part `by_label`: how long its share of the number of examples is."""


@dataclass(frozen=True)
class PrivateSketch:
    """Settings of both releases, public and equal at every client; defaults as measured
    in `bench/private_sketch.py`.

    Attributes:
        noise_multiplier: of the two releases together.
        features: length F of an example's vector.
        seed: public; draws projection and codes.
        classes: number of labels; 0 for a sketch without them.
        dimensions: directions d of the projection; None for 12, and 6 where there are labels.
        centring: share of the budget (of 1/σ²) that the centre takes; 0 leaves the first release
            and the centring out.
        by_label: a part for each label and the number of its examples, instead of codes.

    Raises:
        PrivacyError: a setting is out of range.
    """

    noise_multiplier: float
    features: int
    seed: int = field(repr=False)
    classes: int = 0
    dimensions: int | None = None
    centring: float = 0.1
    by_label: bool = False

    @classmethod
    def within(
        cls,
        epsilon: float,
        delta: float,
        adjacency: Adjacency,
        features: int,
        seed: int,
        classes: int = 0,
        dimensions: int | None = None,
        *,
        by_label: bool = False,
    ) -> Self:
        """The sketch whose two releases cost exactly (ε, δ), by the Gaussian's closed form."""
        noise = noise_for(epsilon, delta, adjacency, sampling_rate=1, steps=1)
        return cls(noise, features, seed, classes, dimensions, by_label=by_label)

    def __post_init__(self) -> None:
        noise, wide = self.noise_multiplier, self.dimensions is None or self.dimensions >= 1
        for holds, name, remedy in (
            (0 < noise < inf, "noise_multiplier", "a finite positive number, for example 4.0"),
            (self.features >= 1, "features", "the length of an example's vector"),
            (self.classes >= 0, "classes", "0 for a sketch without labels"),
            (wide, "dimensions", "1 or more, for example 16"),
            (0 <= self.centring < 1, "centring", "within [0, 1), for example 0.2"),
            (self.classes or not self.by_label, "by_label", "False without labels"),
        ):
            if not holds:
                raise PrivacyError("out of range", name, getattr(self, name), remedy)

    @property
    def part(self) -> int:
        """Length of the plain sketch: the dimensions asked for, at most an example's."""
        coded = self.classes and not self.by_label
        return min(self.features, self.dimensions or (6 if coded else 12))

    @property
    def width(self) -> int:
        """How many numbers a sketch has."""
        return (self.part + self.by_label) * (self.codes.shape[1] if self.classes else 1)

    def plain(self, sketches: Tensor) -> Tensor:
        """What sketches `[..., width]` say of the examples without their labels, `[..., part]`."""
        return sketches[..., : self.part] / _PLAIN if self.classes else sketches

    def parts(self, released: Tensor, size: int) -> tuple[Tensor, Tensor, float]:
        """What a released sketch `[width]` `by_label` says: sums over the examples of each label
        `[classes, part]`, their numbers `[classes]`, and the number from which noise leaves
        something of a label: two deviations of it, and as long a sum as the noise alone has.
        """
        table = released.view(self.classes, self.part + 1) * size
        noise, rest = self.events()[-1].noise_multiplier, sqrt(1 - _COUNT**2)
        fewest = max(2 * noise / _COUNT, noise * sqrt(self.part) / rest, 1.0)
        return table[:, :-1] / rest, table[:, -1] / _COUNT, fewest

    @cached_property
    def codes(self) -> Tensor:
        """A public unit vector a label, float64 `[classes, 1 + c]`, c at most 3: as many labels
        have axes of their own, more are spread out. `by_label` each has an axis, `[classes,
        classes]`.
        """
        if self.by_label:
            return torch.eye(self.classes, dtype=torch.float64)
        if self.classes <= _CODE:
            spread = torch.eye(self.classes, dtype=torch.float64)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "sketch", "codes"))
            shape, kind = (self.classes, _CODE), torch.float64
            draws = (torch.randn(shape, generator=generator, dtype=kind) for _ in range(_TRIED))
            drawn = map(normalize, draws)
            spread = min(drawn, key=lambda codes: float((codes @ codes.T).fill_diagonal_(-1).max()))
        shared = torch.full((self.classes, 1), _PLAIN, dtype=torch.float64)
        return torch.cat([shared, sqrt(1 - _PLAIN**2) * spread], dim=1)

    @cached_property
    def projection(self) -> Tensor:
        """Public orthonormal rows, float64 `[part, features]`; the identity for all features."""
        if self.part == self.features:
            return torch.eye(self.features, dtype=torch.float64)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sketch", "projection"))
        drawn = torch.randn(self.features, self.part, generator=generator, dtype=torch.float64)
        basis: Tensor = torch.linalg.qr(drawn).Q
        return basis.T

    def events(self) -> tuple[GaussianEvent, ...]:
        """What the releases cost, in order: the centre (unless left out), the sketch."""
        shares = [share for share in (self.centring, 1 - self.centring) if share > 0]
        return tuple(GaussianEvent(self.noise_multiplier / sqrt(share), 1.0, 1) for share in shares)

    def release_mean(self, features: Tensor, size: int, stream: NoiseStream) -> Tensor:
        """The client's share of the centre: noised mean of its examples `[N, F]` at unit length,
        float64 `[F]`.

        The centre is the clients' mean of these.

        Args:
            features: vectors of the examples there are; a row with a value that is not finite
                counts as zero.
            size: the client's public number of examples, at least N.
            stream: of this release only.

        Raises:
            PrivacyError: the centring is off, or the shape or size does not fit.
        """
        if not self.centring:
            problem = "this release is not in the budget"
            remedy = "set centring above 0, or skip it"
            raise PrivacyError(problem, "centring", self.centring, remedy)
        self._check(features, size)
        return _released(on_grid(features), size, self.events()[0].noise_multiplier, stream)

    def release(
        self,
        features: Tensor,
        labels: Tensor | None,
        size: int,
        centre: Tensor | None,
        stream: NoiseStream,
    ) -> Tensor:
        """The noised sketch, float64 `[width]`: made once, stored by the client and reused.

        Args:
            features: vectors `[N, F]`, as above.
            labels: int64 `[N]` where there are classes; an example without a label within range
                contributes nothing.
            size: the client's public number of examples.
            centre: ḡ `[F]`, released before; None where the centring is off.
            stream: of this release only.

        Raises:
            PrivacyError: centre, labels, shape or size do not fit the settings.
        """
        self._check(features, size)
        self._check_beside(features, labels, centre)
        rows, noise = self.contributions(features, labels, centre), self.events()[-1]
        return _released(rows, size, noise.noise_multiplier, stream)

    def contributions(
        self, features: Tensor, labels: Tensor | None, centre: Tensor | None
    ) -> Tensor:
        """Each example's part of the sum, int64 `[N, width]`, of length `GRID` at most."""
        unit = normalize(_finite(features))
        rows = normalize((unit if centre is None else unit - centre.double()) @ self.projection.T)
        rows[unit.square().sum(1) == 0] = 0
        if labels is None:
            return on_grid(rows)
        known = (labels >= 0) & (labels < self.classes)
        codes = self.codes[labels.clamp(0, self.classes - 1)] * known[:, None]
        if self.by_label:
            there = (rows.square().sum(1, keepdim=True) > 0) * _COUNT
            rows = torch.cat([sqrt(1 - _COUNT**2) * rows, there], dim=1)
        return on_grid((codes[:, :, None] * rows[:, None, :]).flatten(1))

    def _check_beside(self, features: Tensor, labels: Tensor | None, centre: Tensor | None) -> None:
        """Refuse a centre or labels that do not fit the settings."""
        if (centre is None) == bool(self.centring) or (
            centre is not None and centre.shape != (self.features,)
        ):
            problem = "not the released mean"
            remedy = f"pass [{self.features}], or None with centring = 0"
            raise PrivacyError(
                problem, "centre", None if centre is None else tuple(centre.shape), remedy
            )
        if (labels is None) == bool(self.classes) or (
            labels is not None and labels.shape != features.shape[:1]
        ):
            remedy = "pass int64 [N] where classes > 0, else None"
            raise PrivacyError("not a label an example", "labels", "not shown", remedy)

    def _check(self, features: Tensor, size: int) -> None:
        fits = features.ndim == 2 and features.shape[1] == self.features
        if not fits or len(features) > size or size < 1:
            problem = "not the client's examples"
            remedy = f"pass [N, {self.features}] and the public number of examples, at least N"
            raise PrivacyError(problem, "features", ("N", *features.shape[1:]), remedy)


def on_grid(rows: Tensor) -> Tensor:
    """Rows `[N, D]` brought to unit length, in grid steps, each coordinate cut toward zero: int64
    of length `GRID` at most.

    A row that is zero or has a value that is not finite becomes zero.
    """
    return (normalize(_finite(rows)) * _INSIDE).trunc().long()


def _finite(rows: Tensor) -> Tensor:
    """Float64; rows with NaN or infinity become zero."""
    rows = rows.double()
    return torch.where(rows.isfinite().all(1, keepdim=True), rows, torch.zeros_like(rows))


def _released(
    contributions: Tensor, size: int, noise_multiplier: float, stream: NoiseStream
) -> Tensor:
    """Exact integer sum and rounded normal deviates, over the public size."""
    total = contributions.sum(0)
    normal = torch.special.ndtri(torch.from_numpy(stream.uniform(len(total))))
    deviates = (normal * (noise_multiplier * GRID)).round().long()
    released: Tensor = (total + deviates).double() / (GRID * size)
    return released
