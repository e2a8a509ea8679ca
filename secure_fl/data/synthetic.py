"""Examples that nobody owns: shapes, waves and columns drawn from a public seed.

What is computed from them costs no privacy, for instance how views of an example scatter, before
any data say so.

Suffixes: N examples, C channels, H and W sides, L length, F columns.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor

from secure_fl.errors import DataError
from secure_fl.seeds import generator_of

_SHAPES = 4
"""Shapes in an image, the last of them always there and in front."""
_WAVES = 3
"""Bumps in a series, and as many oscillations."""

_Draw = Callable[[float, float], Tensor]
"""(from, to) -> as many uniform numbers as there are examples, on an axis of their own each."""


def synthetic_examples(shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Examples of a shape, float32 `[count, *shape]`, the same for the same seed.

    Images `[C, H, W]`: blobs, bars and holes, within [0, 1], with something in each. Series
    `[C, L]`: bumps, trends and oscillations, each channel of mean 0 and deviation 1. Vectors `[F]`:
    normal columns of mean 0 and deviation 1, correlated at random.

    Raises:
        DataError: no such shape.
    """
    makers = {3: _images, 2: _series, 1: _vectors}
    if len(shape) not in makers or min(shape) < 1:
        problem = "is the shape of no image, series or vector"
        remedy = "use [C, H, W], [C, L] or [F]"
        raise DataError(problem, field="shape", value=shape, remedy=remedy)
    generator = generator_of(seed, "synthetic-examples")
    return makers[len(shape)](shape, count, generator).float()


def _uniform(generator: torch.Generator, *sizes: int) -> _Draw:
    """In double precision, where the last bits that differ between processors do not show."""
    return lambda low, high: (
        low + (high - low) * torch.rand(*sizes, generator=generator, dtype=torch.float64)
    )


def _images(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Ellipses to rectangles, turned, in front of each other; about a quarter of those behind the
    last are holes. Each is as wide as a pixel at least, so that none falls between pixels.
    """
    channels, *sides = shape
    y, x = torch.meshgrid(*(_centres(side) for side in sides), indexing="ij")
    one, each = _uniform(generator, count, 1, 1, 1), _uniform(generator, count, channels, 1, 1)
    pixel = 2 / min(sides)
    image = torch.zeros(count, channels, *sides, dtype=torch.float64)
    for number in range(_SHAPES):
        angle, right, down = one(0, pi), one(-0.55, 0.55), one(-0.55, 0.55)
        u = (x - right) * angle.cos() + (y - down) * angle.sin()
        v = (y - down) * angle.cos() - (x - right) * angle.sin()
        length, breadth, roundness = pixel + one(0, 0.5), pixel + one(0, 0.25), one(2, 6)
        inside = 1 - (u.abs() / length) ** roundness - (v.abs() / breadth) ** roundness
        cover = torch.sigmoid(4 * inside)
        filled = torch.maximum(image, cover * each(0.4, 1))
        hole = one(0, 1) < (0.25 if number < _SHAPES - 1 else 0)
        image = torch.where(hole, image * (1 - cover), filled)
    return image


def _series(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """A slope, bumps of every width, and oscillations from one period to one every four values."""
    channels, length = shape
    time = torch.linspace(0, 1, length, dtype=torch.float64)
    each = _uniform(generator, count, channels, 1)
    values = each(-1, 1) * time
    for _ in range(_WAVES):
        width = 0.5 * (2 / max(length, 8)) ** each(0, 1)
        values = values + each(-2, 2) * torch.exp(-(((time - each(0, 1)) / width) ** 2))
        periods = (max(length, 8) / 4) ** each(0, 1)
        values = values + each(0, 1) * torch.sin(2 * pi * (periods * time + each(0, 1)))
    values = values + 0.05 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    values = values - values.mean(2, keepdim=True)
    return values / values.square().mean(2, keepdim=True).sqrt().clamp(min=1e-9)


def _vectors(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Half of a column's variance is its own, half comes from fewer directions than columns."""
    columns = shape[0]
    factors = max(1, columns // 3)
    weights = torch.randn(columns, factors, generator=generator, dtype=torch.float64)
    weights = weights / weights.norm(dim=1, keepdim=True)
    common, own = (
        torch.randn(count, size, generator=generator, dtype=torch.float64)
        for size in (factors, columns)
    )
    vectors: Tensor = (common @ weights.T + own) * 0.5**0.5
    return vectors


def _centres(side: int) -> Tensor:
    """Middles of pixels, from -1 to 1."""
    return (torch.arange(side, dtype=torch.float64) + 0.5) * (2 / side) - 1
