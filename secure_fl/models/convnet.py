"""Small encoders: a ConvNet for images, one for series, an MLP for anything."""

from __future__ import annotations

from math import prod

from torch import nn

from secure_fl.models.norms import Norm, norm_layer


def _strided(
    convolution: type[nn.Conv1d | nn.Conv2d],
    kernels: tuple[int, int, int],
    channels: int,
    features: int,
    norm: Norm,
) -> list[nn.Module]:
    """Three convolutions of stride 2, each of twice as many channels as the one before."""
    blocks, before = list[nn.Module](), channels
    for width, kernel in zip((features // 4, features // 2, features), kernels, strict=True):
        blocks += [
            convolution(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
            norm_layer(norm, width, 2 if convolution is nn.Conv2d else 1),
            nn.ReLU(),
        ]
        before = width
    return blocks


class ConvNet(nn.Sequential):
    """Three strided 3×3 convolutions and global average pooling: `[N, C, H, W]` -> `[N, features]`.

    With the default width and one input channel, 92,896 parameters.
    """

    def __init__(self, channels: int, features: int = 128, norm: Norm = "group") -> None:
        blocks = _strided(nn.Conv2d, (3, 3, 3), channels, features, norm)
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SeriesConvNet(nn.Sequential):
    """Three strided 1-D convolutions, averaged over time: `[N, C, L]` -> `[N, features]`, any L."""

    def __init__(self, channels: int, features: int = 128, norm: Norm = "group") -> None:
        blocks = _strided(nn.Conv1d, (7, 5, 3), channels, features, norm)
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
