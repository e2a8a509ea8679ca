"""Small encoders: a ConvNet for images, one for series, an MLP for anything."""

from __future__ import annotations

from math import prod

from torch import nn

from secure_fl.models.norms import Norm, norm_layer


class ConvNet(nn.Sequential):
    """Three strided 3×3 convolutions and global average pooling: `[N, C, H, W]` -> `[N, features]`.

    With the default width and one input channel, 92,896 parameters.
    """

    def __init__(self, channels: int, features: int = 128, norm: Norm = "group") -> None:
        widths = (features // 4, features // 2, features)
        blocks, before = [], channels
        for width in widths:
            blocks += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                norm_layer(norm, width, 2),
                nn.ReLU(),
            ]
            before = width
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SeriesConvNet(nn.Sequential):
    """Three strided 1-D convolutions and global average pooling: `[N, C, L]` -> `[N, features]`;
    any length.
    """

    def __init__(self, channels: int, features: int = 128, norm: Norm = "group") -> None:
        blocks, before = [], channels
        for width, kernel in zip((features // 4, features // 2, features), (7, 5, 3), strict=True):
            blocks += [
                nn.Conv1d(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
                norm_layer(norm, width, 1),
                nn.ReLU(),
            ]
            before = width
        super().__init__(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten())


class MLP(nn.Sequential):
    """Two hidden layers over the flattened example: `[N, ...]` -> `[N, features]`.

    The first layer has a bias, since what follows is normalised: without one, examples that differ
    in length alone would be one to it, and of a single column nothing but the sign would be left.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 128, norm: Norm = "group") -> None:
        hidden = 2 * features
        super().__init__(
            nn.Flatten(),
            nn.Linear(prod(shape), hidden),
            norm_layer(norm, hidden, 0),
            nn.ReLU(),
            nn.Linear(hidden, features, bias=False),
            norm_layer(norm, features, 0),
            nn.ReLU(),
        )
