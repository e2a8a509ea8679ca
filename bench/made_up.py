"""Sets that nobody has chosen a method on: pictures with an upper and a lower side, and series.

They are made from a seed, with classes, and are in no other place of the project.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

CLASSES = 6
_SIDE, _LENGTH = 28, 64


def pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images `[count, 1, 28, 28]` within [0, 1] and their classes `[count]`.

    A figure of one of six shapes stands on textured ground under light from above; ground, light,
    place, size and contrast differ from picture to picture more than shapes do.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    labels = torch.randint(CLASSES, (count,), generator=generator)
    line = torch.linspace(-1, 1, _SIDE)
    y, x = line[:, None].expand(_SIDE, _SIDE), line[None].expand(_SIDE, _SIDE)
    horizon, width, height = drawn(0.1, 0.6), drawn(0.2, 0.5), drawn(0.4, 1.0)
    u, v = (x - drawn(-0.5, 0.5)) / width, (horizon + 0.2 - y) / height
    shapes = torch.stack(
        [
            (u.abs() < 1) & (v > 0) & (v < 1),
            (u.abs() < 1 - v) & (v > 0),
            u.square() + (2 * v - 1).square() < 1,
            (u.abs() < 0.3) & (v > 0) & (v < 1.6),
            ((u.abs() < 1) & (v > 0.6) & (v < 1)) | ((u.abs() < 0.25) & (v > 0) & (v < 1)),
            (u.abs() < v) & (v < 1),
        ]
    )
    figure = shapes[labels, torch.arange(count)]
    sky = drawn(0.3, 0.9) - drawn(-0.1, 0.3) * (y + 1) / 2
    grain = torch.sin(drawn(6, 20) * (y + drawn(-0.5, 0.5) * x) + drawn(0, 2 * pi))
    ground = drawn(0.1, 0.6) + drawn(0.0, 0.15) * grain
    image = torch.where(y > horizon, ground, sky)
    image = torch.where(figure, drawn(0.0, 1.0).expand_as(image), image)
    noise = 0.05 * torch.randn(count, _SIDE, _SIDE, generator=generator)
    return (image + noise).clamp(0, 1)[:, None], labels


def waves(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Series `[count, 1, 64]`, each of mean 0 and deviation 1, and their classes `[count]`.

    A class has two frequencies and a place where a bump decays; phases, heights and noise are each
    series' own.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    time = torch.arange(_LENGTH) / _LENGTH

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=generator)

    slow, fast = 1 + labels[:, None] % 3, 5 + 2 * labels[:, None]
    values = drawn(0.5, 1) * torch.sin(2 * pi * (slow * time + drawn(0, 1)))
    values = values + drawn(0.3, 0.8) * torch.sin(2 * pi * (fast * time + drawn(0, 1)))
    since = time - (0.15 + 0.1 * labels[:, None]) - drawn(-0.05, 0.05)
    values = values + drawn(1, 3) * torch.where(since > 0, torch.exp(-12 * since), 0.0)
    values = values + 0.3 * torch.randn(count, _LENGTH, generator=generator)
    values = values - values.mean(1, keepdim=True)
    return (values / values.std(1, keepdim=True))[:, None], labels


def changed(x: Tensor, group: int) -> Tensor:
    """Series `[N, C, L]` as the sensor of one of four groups gives them: as they are, upside down,
    backward in time, or smoothed over five values.
    """
    smoothed = torch.nn.functional.avg_pool1d(x, 5, 1, 2, count_include_pad=False)
    return (x, -x, x.flip(2), smoothed)[group]
