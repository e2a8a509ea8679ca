"""Features that no data made, and a linear map of them that private statistics of data make.

The features are a public map, the same for everybody: scattering, then random directions and a
ReLU, then unit length. What an example adds to a sum of such vectors has a known length, so that
noise can hide it. The map on top is a centre and a matrix, which travel like any encoder's weights.

Suffixes: N examples, S numbers of the front-end, F features, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.models.blocks import in_blocks
from secure_fl.models.scattering import Scattering
from secure_fl.seeds import generator_of

_MEAN = 0.4
"""What a ReLU of a standard normal number is on average, 1 / √2π: features lie around 0."""


class ViewFeatures(nn.Module):
    """`[N, *shape]` -> `[N, features]`, rows of length 1: ReLU of random directions of the
    scattering (`Scattering`).

    The directions are drawn from a public seed. Nothing is trained and nothing is averaged: no
    tensor here is in a `state_dict`. `double()` computes in double precision.

    **Guarantee**: a row of the result is a function of that example alone, whatever rows stand
    beside it, and has length 1 but for rounding; so replacing an example changes its own row only.

    **Assumes**: a finite example. One that is not gives a row that is not.

    **Not covered**: the same bits on another kind of processor. Those agree to about 1e-6.

    Args:
        shape: of one example.
        features: F.
        seed: of the directions.

    Raises:
        ModelError: as `Scattering`.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.width = features
        self.front = Scattering(shape)
        generator = generator_of(seed, "view-features")
        # In double precision first: its last bits differ between processors, a float's do not.
        drawn = torch.randn(
            features, self.front.width + 1, generator=generator, dtype=torch.float64
        ).float()
        self.directions_FS: Tensor
        self.offsets_F: Tensor
        self.register_buffer("directions_FS", drawn[:, :-1].contiguous(), persistent=False)
        self.register_buffer("offsets_F", drawn[:, -1].contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return in_blocks(self._features, x)

    def _features(self, x: Tensor) -> Tensor:
        projected = functional.linear(self.front(x), self.directions_FS, self.offsets_F)
        raised = functional.relu(functional.layer_norm(projected, (self.width,))) - _MEAN
        return functional.normalize(raised, dim=1)


class WhitenedEncoder(nn.Module):
    """`[N, *shape]` -> `[N, out]`: unit(features - centre) @ whitening.

    A centre of zeros and the identity give the features themselves.

    Args:
        shape: of one example.
        features: F.
        out: O, by default F.
        seed: of the features. Whoever restores the encoder from its weights needs the same, for
            the features are none of them.

    Attributes:
        features: the public map.
        centre: `[F]`.
        whitening: `[F, O]`.
    """

    def __init__(
        self, shape: tuple[int, ...], features: int = 512, out: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.features = ViewFeatures(shape, features, seed)
        self.centre = nn.Parameter(torch.zeros(features))
        self.whitening = nn.Parameter(torch.eye(features, out or features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.features(x) - self.centre, dim=1) @ self.whitening
