"""The private sketch start: what a client's examples look like on average, released once at example level and reused.

Two releases a client. First the mean of its unit embeddings, very noisy; averaged over clients (in a secure sum) it is the public centre ḡ.
Then the sketch: every embedding is centred by ḡ, projected to a few public directions and brought to unit length again, and the mean of
these is released. Centring pays because length is what noise is charged for: embeddings of one encoder point much the same way, and of a unit
vector little is left to tell groups apart. Everything computed from the two afterwards, such as every round of k-means, is free.

**Guarantee**: for the n public example slots of a client, each release is one Gaussian mechanism: its sum moves by at most 1 under zero-out
and 2 under replace-one, against noise of σ₁ and σ₂ with σ₁⁻² + σ₂⁻² = noise_multiplier⁻². The released values are integers over a fixed power
of two: a sum of integer vectors plus a rounded normal deviate drawn without it. As rounding to integers commutes with adding integers, this
is post-processing of the real Gaussian mechanism, and no low bit of a floating-point sum leaves.

*Proof of the bound.* A release is Σ_j f(e_j; public)/n + noise/n, where f depends on example j's own embedding (and label) and on public values
only: the projection, and ḡ, which was released before, so that the pair is an adaptive composition. f is zero or has length at most 1, since the
unit vector is shrunk toward zero coordinate by coordinate; split by label it sits in one part and keeps its length. An empty slot contributes
zero, not minus ḡ, and n is public. So zero-out moves the sum by ‖f‖ ≤ 1, and replace-one by ‖f − f'‖ ≤ 2, whatever ḡ is.

**Assumes**: the encoder treats each example by itself (eval mode, no batch statistics) and is public or released before; n is public; both
streams are secret and used once; a noised sketch is stored and reused, never made a second time.

**Not covered**: other clients' members (each client pays for its own examples); whether a client takes part; what the sum hides, as a
release is protected by its own noise from whoever sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf, sqrt

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.noise import NoiseStream
from secure_fl.seeds import derive_seed
from secure_fl_kernels.reference import normalize

GRID = 2**20
"""Steps in a length of 1. Shrinking toward the grid costs at most a millionth a coordinate."""
_INSIDE = GRID * (1 - 2.0**-30)
"""A unit vector's length before it is cut to the grid: rounding in float64 cannot take it past `GRID`."""


@dataclass(frozen=True)
class PrivateSketch:
    """Settings of both releases, public and equal at every client.

    Attributes:
        noise_multiplier: of the two releases together.
        features: width F of an embedding.
        seed: public; draws the projection.
        classes: parts the sketch is split into by label; 0 for one part.
        dimensions: directions d of a part; None for 16, and 8 where there are labels, as measured in `bench/private_sketch.py`.
        centring: share of the budget (of 1/σ²) that the centre takes; 0 leaves the first release and the centring out.

    Raises:
        PrivacyError: a setting is out of range.
    """

    noise_multiplier: float
    features: int
    seed: int = field(repr=False)
    classes: int = 0
    dimensions: int | None = None
    centring: float = 0.2

    def __post_init__(self) -> None:
        for holds, name, remedy in (
            (0 < self.noise_multiplier < inf, "noise_multiplier", "a finite positive number, for example 4.0"),
            (self.features >= 1, "features", "the encoder's width"),
            (self.classes >= 0, "classes", "0 for a sketch without labels"),
            (self.dimensions is None or self.dimensions >= 1, "dimensions", "1 or more, for example 16"),
            (0 <= self.centring < 1, "centring", "within [0, 1), for example 0.2"),
        ):
            if not holds:
                raise PrivacyError("out of range", field=name, value=getattr(self, name), remedy=remedy)

    @property
    def part(self) -> int:
        """Width of a part: the dimensions asked for, at most the embedding's."""
        return min(self.features, self.dimensions or (8 if self.classes else 16))

    @property
    def width(self) -> int:
        """Length of a sketch."""
        return self.part * max(1, self.classes)

    @cached_property
    def projection(self) -> Tensor:
        """Public orthonormal rows, float64 `[part, features]`; the identity when nothing is left out."""
        if self.part == self.features:
            return torch.eye(self.features, dtype=torch.float64)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sketch", "projection"))
        basis: Tensor = torch.linalg.qr(torch.randn(self.features, self.part, generator=generator, dtype=torch.float64)).Q
        return basis.T

    def events(self) -> tuple[GaussianEvent, ...]:
        """What the releases cost, in order: the centre (unless left out), the sketch."""
        shares = [share for share in (self.centring, 1 - self.centring) if share > 0]
        return tuple(GaussianEvent(noise_multiplier=self.noise_multiplier / sqrt(share), sampling_rate=1.0, steps=1) for share in shares)

    def release_mean(self, features: Tensor, size: int, stream: NoiseStream) -> Tensor:
        """The client's share of the centre: noised mean of its unit embeddings `[N, F]`, float64 `[F]`. The centre is the clients' mean of these.

        Args:
            features: embeddings of the examples there are; a row with a value that is not finite counts as zero.
            size: the client's public number of examples, at least N.
            stream: of this release only.

        Raises:
            PrivacyError: the centring is off, or the shape or size does not fit.
        """
        if not self.centring:
            raise PrivacyError("this release is not in the budget", field="centring", value=self.centring, remedy="set centring above 0, or skip it")
        self._check(features, size)
        return _released(on_grid(features), size, self.events()[0].noise_multiplier, stream)

    def release(self, features: Tensor, labels: Tensor | None, size: int, centre: Tensor | None, stream: NoiseStream) -> Tensor:
        """The noised sketch, float64 `[width]`: made once, stored by the client and reused.

        Args:
            features: embeddings `[N, F]`, as above.
            labels: int64 `[N]` where the sketch is split by label; an example without a label within range contributes nothing.
            size: the client's public number of examples.
            centre: ḡ `[F]`, released before; None where the centring is off.
            stream: of this release only.

        Raises:
            PrivacyError: centre, labels, shape or size do not fit the settings.
        """
        self._check(features, size)
        if (centre is None) == bool(self.centring) or (centre is not None and centre.shape != (self.features,)):
            found = None if centre is None else tuple(centre.shape)
            raise PrivacyError("not the released mean", field="centre", value=found, remedy=f"pass [{self.features}], or None with centring = 0")
        if (labels is None) == bool(self.classes) or (labels is not None and labels.shape != features.shape[:1]):
            raise PrivacyError("not a label an example", field="labels", value="not shown", remedy="pass int64 [N] where classes > 0, else None")
        return _released(self.contributions(features, labels, centre), size, self.events()[-1].noise_multiplier, stream)

    def contributions(self, features: Tensor, labels: Tensor | None, centre: Tensor | None) -> Tensor:
        """What each example adds to the sketch's sum, int64 `[N, width]`, each of length `GRID` at most and from its own row only."""
        unit = normalize(_finite(features))
        rows = on_grid((unit if centre is None else unit - centre.double()) @ self.projection.T)
        rows[unit.square().sum(1) == 0] = 0
        if labels is None:
            return rows
        member = labels[:, None] == torch.arange(self.classes)
        return (member[:, :, None] * rows[:, None, :]).flatten(1)

    def _check(self, features: Tensor, size: int) -> None:
        if features.ndim != 2 or features.shape[1] != self.features or len(features) > size or size < 1:
            remedy = f"pass [N, {self.features}] and the public number of examples, at least N"
            raise PrivacyError("not the client's embeddings", field="features", value=(tuple(features.shape), size), remedy=remedy)


def on_grid(rows: Tensor) -> Tensor:
    """Rows `[N, D]` brought to unit length, in grid steps, each coordinate cut toward zero: int64 of length `GRID` at most.

    A row that is zero or has a value that is not finite becomes zero.
    """
    return (normalize(_finite(rows)) * _INSIDE).trunc().long()


def _finite(rows: Tensor) -> Tensor:
    """Float64; rows with NaN or infinity become zero."""
    rows = rows.double()
    return torch.where(rows.isfinite().all(1, keepdim=True), rows, torch.zeros_like(rows))


def _released(contributions: Tensor, size: int, noise_multiplier: float, stream: NoiseStream) -> Tensor:
    """Exact integer sum, plus rounded normal deviates by the inverse of their distribution, over the public size."""
    total = contributions.sum(0)
    deviates = torch.special.ndtri(torch.from_numpy(stream.uniform(len(total)))) * (noise_multiplier * GRID)
    released: Tensor = (total + deviates.round().long()).double() / (GRID * size)
    return released
