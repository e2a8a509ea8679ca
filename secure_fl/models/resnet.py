"""ResNet-18 with the CIFAR stem, as SSD trains it: 11,168,832 parameters without the classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from secure_fl.models.norms import Norm, norm_layer

_WIDTHS = (64, 128, 256, 512)
FEATURES = _WIDTHS[-1]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    def __init__(self, before: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            norm_layer(norm, width, 2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm_layer(norm, width, 2),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), norm_layer(norm, width, 2)
            )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """`[N, C, H, W]` -> `[N, 512]`: 3×3 stem of stride 1, no max-pool, two blocks a stage."""

    def __init__(self, channels: int = 3, norm: Norm = "batch") -> None:
        blocks: list[nn.Module] = [
            nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False),
            norm_layer(norm, _WIDTHS[0], 2),
            nn.ReLU(),
        ]
        before = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            blocks += [
                BasicBlock(before, width, 1 if stage == 0 else 2, norm),
                BasicBlock(width, width, 1, norm),
            ]
            before = width
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
