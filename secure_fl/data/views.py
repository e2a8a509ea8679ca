"""Two views of an example: kornia for images, our own batched changes for series.

An augmentation is any callable `x -> x'` on a batch. It may use torch's global generator: `two_views` seeds it and puts it
back, so views are a function of the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.config import ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import ConfigError, DataError

Augmentation = Callable[[Tensor], Tensor]

_ROUNDING = 1e-3
_JITTER_SHARE = 0.8
"""SSD jitters colours of 80 % of the images and greys 20 %."""
_GREY_SHARE = 0.2


def build_views(config: ViewsConfig, shape: tuple[int, ...]) -> Augmentation:
    """The augmentation for examples of `shape` (`[C, H, W]`, `[C, L]` or `[F]`).

    Raises:
        ConfigError: `views.kind` does not fit the shape.
    """
    kind = config.kind
    if kind == "auto":
        kind = ("photo" if shape[0] == 3 else "glyph") if len(shape) == 3 else "series"
    if (kind == "series") == (len(shape) == 3) or (kind == "photo" and shape[0] != 3):
        remedy = 'set views.kind = "auto", or pass an augmentation of your own'
        raise ConfigError(f"does not fit examples of shape {shape}", field="views.kind", value=config.kind, remedy=remedy)
    if kind == "series":
        return SeriesViews(config.noise, config.mask)
    return _photo(config, shape) if kind == "photo" else _glyph(config, shape)


def check_range(data: Dataset) -> None:
    """Refuse images outside [0, 1]: the image views jitter brightness there and would clip them silently.

    Raises:
        DataError: a value is outside.
    """
    if data.kind == "image" and not (float(data.x.min()) >= -_ROUNDING and float(data.x.max()) <= 1 + _ROUNDING):
        remedy = "scale images to [0, 1] or give them as unsigned bytes, leave data.scale at auto, or pass an augmentation of your own"
        raise DataError("images outside [0, 1] cannot be augmented", field=f"{data.name}.x", value="not shown", remedy=remedy)


def two_views(augment: Augmentation, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Two independent augmentations of the batch `x`, the same for one seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        return augment(x), augment(x)


def _photo(config: ViewsConfig, shape: tuple[int, ...]) -> nn.Module:
    """SSD's: crop, flip, colour jitter, occasional grey; no blur, no normalisation."""
    from kornia import augmentation as kornia

    strength = 0.8 if config.colour_jitter is None else config.colour_jitter
    return nn.Sequential(
        _crop(config.crop_scale or (0.08, 1.0), shape),
        kornia.RandomHorizontalFlip(p=0.5 if config.flip is None else config.flip),
        kornia.ColorJitter(strength, strength, strength, strength / 4, p=_JITTER_SHARE),
        kornia.RandomGrayscale(p=_GREY_SHARE),
    )


def _glyph(config: ViewsConfig, shape: tuple[int, ...]) -> nn.Module:
    """For one channel, where a flip changes the meaning: gentle crop, brightness and contrast."""
    from kornia import augmentation as kornia

    strength = 0.4 if config.colour_jitter is None else config.colour_jitter
    between = (1 - strength, 1 + strength)
    return nn.Sequential(
        _crop(config.crop_scale or (0.4, 1.0), shape),
        kornia.RandomHorizontalFlip(p=config.flip or 0.0),
        kornia.RandomBrightness(between, p=_JITTER_SHARE),
        kornia.RandomContrast(between, p=_JITTER_SHARE),
    )


def _crop(scale: tuple[float, float], shape: tuple[int, ...]) -> nn.Module:
    from kornia import augmentation as kornia

    crop: nn.Module = kornia.RandomResizedCrop((shape[1], shape[2]), scale=scale, p=1.0, cropping_mode="resample")
    return crop


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

    def __call__(self, x: Tensor) -> Tensor:
        x = x * (1 + self.scale * torch.randn(len(x), *[1] * (x.ndim - 1), device=x.device))
        if x.ndim == 3:
            x = self._warped(x)
        x = x + self.noise * torch.randn_like(x)
        return x * self._kept(x)

    def _warped(self, x_NCL: Tensor) -> Tensor:
        """Read each series at times bent by a random sine that leaves both ends in place."""
        length = x_NCL.shape[-1]
        time = torch.linspace(-1, 1, length, device=x_NCL.device)
        bend = self.warp * 2 * (2 * torch.rand(len(x_NCL), 1, device=x_NCL.device) - 1) * torch.sin(torch.pi * (time + 1) / 2)
        grid = torch.stack([time + bend, torch.zeros_like(bend)], dim=-1)[:, None]
        warped = functional.grid_sample(x_NCL[:, :, None], grid, padding_mode="border", align_corners=True)
        return warped[:, :, 0]

    def _kept(self, x: Tensor) -> Tensor:
        """0 on one random stretch of each series (on random features of a vector), 1 elsewhere."""
        length = x.shape[-1]
        if x.ndim == 2:
            return (torch.rand_like(x) >= self.mask).to(x.dtype)
        start = torch.rand(len(x), 1, 1, device=x.device) * (1 - self.mask) * length
        step = torch.arange(length, device=x.device)
        return ((step < start) | (step >= start + self.mask * length)).to(x.dtype)
