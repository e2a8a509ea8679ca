"""Random changes of images, series and tables, each example's from coins of its own: what one looks
like does not depend on who else is there.

Which numbers decide is drawn at once for all rows (`secure_fl.coins`), and every change is a
formula of a row and its numbers. Formulas of colour are those of kornia and torchvision. Positions
in a grid need the bits of float32: `views` draws outside of autocast. Examples in double precision
are changed in double precision throughout.

Suffixes: N rows, C channels, H and W sides, L time steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from math import log, prod, radians
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from secure_fl.coins import Draws, Use

_TRIES = 10
"""Boxes drawn for a crop, of which the first that fits is taken."""
_NARROWEST, _WIDEST = 3 / 4, 4 / 3
"""Width over height of a box."""
_JITTER_SHARE, _GREY_SHARE = 0.8, 0.2
"""SSD jitters colours of 80 % of the images and greys 20 %."""
_LUMA = (0.299, 0.587, 0.114)


@runtime_checkable
class KeyedAugmentation(Protocol):
    """An augmentation given its coins: whole batches change at once, no row tied to others."""

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        """`x` `[N, ...]` -> as many rows, row i from `x[i]` and the i-th row of coins alone."""


@dataclass(frozen=True)
class PhotoViews:
    """SSD's: crop, flip, colour jitter, occasional grey; no blur, no normalisation. Images
    `[N, 3, H, W]` within [0, 1].

    Attributes:
        crop_scale: share of the area that a crop keeps, from and to.
        flip: probability of a horizontal flip.
        jitter: strength of brightness, contrast and saturation; hue is turned by a quarter of it
            at most.
        turn: degrees that an image is turned by at most, either way.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    jitter: float = 0.8
    turn: float = 0.0

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        numbers = draws.uniform(2 * _TRIES + 9, Use.DECISIONS).to(x.dtype)
        order = list(permutations(range(4)))[int(24 * float(draws.shared().uniform(1, Use.SHARED)))]
        boxes, others = numbers.tensor_split([2 * _TRIES + 2], 1)
        flip, jitter, grey, *factors = others.to(x.device).unbind(1)
        x = cropped(x, boxes, self.crop_scale, _angles(draws, self.turn))
        _change(x, flip < self.flip, lambda x, _: x.flip(3))
        _change(
            x,
            jitter < _JITTER_SHARE,
            lambda x, rows: self._jittered(x, [factor[rows] for factor in factors], order),
        )
        _change(x, grey < _GREY_SHARE, lambda x, _: _grey(x).expand_as(x))
        return x

    def _jittered(self, x: Tensor, factors: list[Tensor], order: tuple[int, ...]) -> Tensor:
        """Brightness, contrast, saturation and hue, in an order that the whole batch shares."""
        from kornia.enhance import adjust_hue

        brightness, contrast, saturation = (
            _over_pixels(_between(factor, self.jitter)) for factor in factors[:3]
        )
        turn = 2 * torch.pi * (2 * factors[3] - 1) * self.jitter / 4
        steps: list[Callable[[Tensor], Tensor]] = [
            lambda x: x * brightness,
            lambda x: contrast * x + (1 - contrast) * _grey(x).mean((2, 3), keepdim=True),
            lambda x: saturation * x + (1 - saturation) * _grey(x),
            lambda x: adjust_hue(x, turn),
        ]
        x = x.clamp(0, 1)
        for number in order:
            x = steps[number](x).clamp(0, 1)
        return x


@dataclass(frozen=True)
class GlyphViews:
    """For images `[N, C, H, W]` within [0, 1] whose meaning a flip would change: gentle crop,
    brightness and contrast.

    Attributes:
        crop_scale: share of the area that a crop keeps, from and to.
        flip: probability of a horizontal flip.
        jitter: strength of both.
        turn: degrees that an image is turned by at most, either way.
    """

    crop_scale: tuple[float, float] = (0.4, 1.0)
    flip: float = 0.0
    jitter: float = 0.4
    turn: float = 0.0

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        numbers = draws.uniform(2 * _TRIES + 7, Use.DECISIONS).to(x.dtype)
        boxes, others = numbers.tensor_split([2 * _TRIES + 2], 1)
        flip, lit, brightness, sharpened, contrast = others.to(x.device).unbind(1)
        added = torch.where(lit < _JITTER_SHARE, _between(brightness, self.jitter) - 1, 0.0)
        factor = torch.where(sharpened < _JITTER_SHARE, _between(contrast, self.jitter), 1.0)
        x = cropped(x, boxes, self.crop_scale, _angles(draws, self.turn))
        _change(x, flip < self.flip, lambda x, _: x.flip(3))
        return x.add_(_over_pixels(added)).clamp_(0, 1).mul_(_over_pixels(factor)).clamp_(0, 1)


@dataclass(frozen=True)
class SeriesViews:
    """Scale, warp in time, add noise, hide a stretch; each example changed in its own way.

    Series `[N, C, L]`; vectors `[N, F]` are scaled, noised and masked, not warped.

    Attributes:
        noise: deviation of the added Gaussian noise, in units of the values.
        mask: share of time steps (vectors: of features) set to zero.
        scale: deviation of the factor each example is multiplied by.
        warp: largest shift of a time step, as a share of the length.
    """

    noise: float = 0.1
    mask: float = 0.2
    scale: float = 0.1
    warp: float = 0.05

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        values = prod(x.shape[1:])
        deviates = draws.normal(values + 1, Use.NOISE).to(x)
        decisions = draws.uniform(2 if x.ndim == 3 else values, Use.DECISIONS).to(x)
        x = x * (1 + self.scale * deviates[:, -1]).view(-1, *[1] * (x.ndim - 1))
        if x.ndim == 3:
            x = self._warped(x, decisions[:, :1])
        x = x + self.noise * deviates[:, :values].view_as(x)
        return x * self._kept(x, decisions)

    def _warped(self, x_NCL: Tensor, number_N1: Tensor) -> Tensor:
        """Read each series at times bent by a random sine that leaves both ends in place."""
        length = x_NCL.shape[-1]
        time = torch.linspace(-1, 1, length, device=x_NCL.device, dtype=x_NCL.dtype)
        bend = self.warp * 2 * (2 * number_N1 - 1) * torch.sin(torch.pi * (time + 1) / 2)
        grid = torch.stack([time + bend, torch.zeros_like(bend)], dim=-1)[:, None]
        warped = functional.grid_sample(
            x_NCL[:, :, None], grid, padding_mode="border", align_corners=True
        )
        return warped[:, :, 0]

    def _kept(self, x: Tensor, decisions: Tensor) -> Tensor:
        """0 on one random stretch of each series (on random features of a vector), 1 elsewhere."""
        if x.ndim == 2:
            return (decisions >= self.mask).to(x.dtype)
        length = x.shape[-1]
        start = decisions[:, 1].view(-1, 1, 1) * (1 - self.mask) * length
        step = torch.arange(length, device=x.device)
        return ((step < start) | (step >= start + self.mask * length)).to(x.dtype)


@dataclass(frozen=True)
class TableViews:
    """Replace random columns and add noise: corruption as in SCARF (Bahri et al. 2022), for vectors
    `[N, F]` whose columns are standardised.

    SCARF draws what replaces a value from the same column of other examples. That would put one
    example into another's view, so here it is drawn from a standard normal, which has the mean and
    deviation of every standardised column and is public. At least one column of an example stays.
    Pixels as columns are far from normal, and there SCARF's share of 0.6 harms: kNN of digits 0.928
    before, then 0.911 with 0.6, 0.936 with 0.3, 0.942 with 0.15, and 0.952 with columns hidden
    instead (`views.kind = "series"`); breast cancer 0.940, then 0.958, 0.954, 0.954 and 0.950; wine
    0.945, then 0.947, 0.950, 0.950 and 0.955 (`python -m bench.table_views`, SSD, three seeds).

    Attributes:
        corrupt: probability that a column is replaced.
        noise: deviation of the Gaussian noise added to all columns.
    """

    corrupt: float = 0.15
    noise: float = 0.1

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        columns = x.shape[1]
        deviates = draws.normal(2 * columns, Use.NOISE).to(x)
        decisions = draws.uniform(columns, Use.DECISIONS).to(x)
        replaced = (decisions < self.corrupt) & (decisions < decisions.amax(1, keepdim=True))
        return torch.where(replaced, deviates[:, :columns], x) + self.noise * deviates[:, columns:]


def cropped(
    x_NCHW: Tensor, numbers: Tensor, scale: tuple[float, float], angle_N: Tensor | None = None
) -> Tensor:
    """A box of each image, resized to the whole: the first of ten that fits, its area within
    `scale` and its shape from 3:4 to 4:3.

    Args:
        numbers: `[N, 22]` within [0, 1): areas, shapes, and where the box begins.
        angle_N: radians that each image is turned by about its middle, before; what then lies
            outside of it is 0.
    """
    height, width = x_NCHW.shape[2:]
    wide, high = _boxes(height, width, numbers, scale)
    columns, rows = _places(wide, width, numbers[:, -2]), _places(high, height, numbers[:, -1])
    x_NHW, y_NHW = torch.broadcast_tensors(columns[:, None, :], rows[:, :, None])
    outside = "border"
    if angle_N is not None:
        x_NHW, y_NHW = _turned(x_NHW, y_NHW, angle_N, (height, width))
        outside = "zeros"
    grid = torch.stack([x_NHW, y_NHW], 3).to(x_NCHW.device)
    return functional.grid_sample(x_NCHW, grid, padding_mode=outside, align_corners=True)


def _boxes(
    height: int, width: int, numbers: Tensor, scale: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Width and height `[N]` of a box of each image, in pixels."""
    area = (scale[0] + (scale[1] - scale[0]) * numbers[:, :_TRIES]) * (height * width)
    shape = (
        log(_NARROWEST) + (log(_WIDEST) - log(_NARROWEST)) * numbers[:, _TRIES : 2 * _TRIES]
    ).exp()
    wide, high = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.int().argmax(1, keepdim=True)
    wide, high = (side.gather(1, first)[:, 0] for side in (wide, high))
    # Where none fits: the whole image, or as much of it as has an admissible shape.
    none = ~fits.any(1)
    wide[none] = min(float(width), float(round(height * _WIDEST)))
    high[none] = min(float(height), float(round(width / _NARROWEST)))
    return wide, high


def _angles(draws: Draws, degrees: float) -> Tensor | None:
    """Each image's own, `[N]` in radians; none are drawn where images are not turned."""
    return radians(degrees) * (2 * draws.uniform(1, Use.TURN)[:, 0] - 1) if degrees else None


def _turned(
    x_NHW: Tensor, y_NHW: Tensor, angle_N: Tensor, sides: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Places from -1 to 1, turned about 0 in pixels, which are as wide as they are high."""
    cosine, sine = (part[:, None, None] for part in (angle_N.cos(), angle_N.sin()))
    aspect = max(1, sides[0] - 1) / max(1, sides[1] - 1)
    return cosine * x_NHW - sine * aspect * y_NHW, sine / aspect * x_NHW + cosine * y_NHW


def _places(extent_N: Tensor, side: int, number_N: Tensor) -> Tensor:
    """Where a side's pixels are read, `[N, side]` from -1 to 1, evenly over a random extent."""
    start = (number_N * (side - extent_N + 1)).floor()
    step = (extent_N - 1) / max(1, side - 1)
    places: Tensor = (
        2 * (start[:, None] + step[:, None] * torch.arange(side)) / max(1, side - 1) - 1
    )
    return places


def _between(number_N: Tensor, strength: float) -> Tensor:
    """Factors from 1 - strength to 1 + strength."""
    return 1 + strength * (2 * number_N - 1)


def _grey(x_NCHW: Tensor) -> Tensor:
    """Luma, `[N, 1, H, W]`."""
    red, green, blue = x_NCHW.split(1, 1)
    luma: Tensor = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return luma


def _change(x_NCHW: Tensor, chosen_N: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Change the chosen rows in place, by a function of them and of their numbers."""
    rows = chosen_N.nonzero()[:, 0]
    if len(rows):
        x_NCHW[rows] = change(x_NCHW[rows], rows)


def _over_pixels(values_N: Tensor) -> Tensor:
    return values_N.view(-1, 1, 1, 1)
