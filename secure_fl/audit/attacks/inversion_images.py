"""Images made out of a gradient, and pictures of them beside the true ones."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.audit.attacks.inversion_ranks import Gradients, Ranks
from secure_fl.audit.outcome import Picture
from secure_fl.objectives.objective import TwoViews

_VARIATION = 0.01
_DROPS, _DROP = (3 / 8, 5 / 8, 7 / 8), 0.3
_SIDE = 64
"""Pixels that an image's side is drawn with, at least."""


@dataclass(frozen=True)
class Reconstruction:
    """How images are optimised.

    Attributes:
        images: of the batch, two views each.
        iterations: of Adam.
        rate: its step, which drops three times.
    """

    images: int
    iterations: int
    rate: float = 0.1

    def run(self, ranks: Ranks, gradients: Gradients, rows: int, seed: int) -> Tensor:
        """Views `[2 · images, ...]`, first views first, whose gradient points as `gradients` does.

        Args:
            ranks: the attacker's.
            rows: that the layer has seen: of which its span is made.
        """
        generator = torch.Generator().manual_seed(seed)
        start = ranks.images.mean(0) + 0.1 * torch.randn(
            2 * self.images, *ranks.images.shape[1:], generator=generator
        )
        low, high = float(ranks.images.min()), float(ranks.images.max())
        x, basis = start.clamp(low, high).requires_grad_(), ranks.span(gradients, rows)
        adam = torch.optim.Adam([x], lr=self.rate)
        steps = [int(share * self.iterations) for share in _DROPS]
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, steps, _DROP)
        for _ in range(self.iterations):
            adam.zero_grad()
            self._loss(ranks, gradients, basis, x).backward()
            adam.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_(low, high)
        return x.detach()

    def _loss(self, ranks: Ranks, wanted: Gradients, basis: Tensor, x: Tensor) -> Tensor:
        made = ranks.gradients_of(TwoViews(x[: self.images], x[self.images :]), keep=True)
        dot = torch.stack([(wanted[name] * part).sum() for name, part in made.items()]).sum()
        lengths = [
            torch.stack([part.square().sum() for part in each.values()]).sum().sqrt()
            for each in (wanted, made)
        ]
        outside = 1 - (ranks.inputs(x) @ basis.T).square().sum(1)
        return 1 - dot / (lengths[0] * lengths[1]) + outside.mean() + _VARIATION * _variation(x)


def _variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along all axes of images and series."""
    parts = [x.diff(dim=axis).abs().mean() for axis in range(2, x.ndim)]
    return torch.stack(parts).sum() if parts else x.new_zeros(())


def paired(made: Tensor, true: Tensor) -> Tensor:
    """`made`, in the order in which they are nearest to `true` `[N, ...]`: the nearest pair first
    out of all, and so on. For showing and measuring: an attacker knows no order.
    """
    distances, order = torch.cdist(true.flatten(1), made.flatten(1)), [0] * len(true)
    for _ in range(min(len(true), len(made))):
        row, column = divmod(int(distances.argmin()), len(made))
        order[row] = column
        distances[row], distances[:, column] = torch.inf, torch.inf
    return made[order]


def decibels(made: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each row, against a range of one, at most 100."""
    error = (made - true).flatten(1).double().square().mean(1)
    return (-10 * error.clamp_min(1e-10).log10()).float()


def picture(said: str, rows: list[Tensor]) -> Picture | None:
    """Rows of images `[N, C, H, W]` one below the other, in grey; None of what are no images."""
    if any(row.ndim != 4 for row in rows) or not all(len(row) for row in rows):
        return None
    side, grey = max(rows[0].shape[2:]), [row.detach().float().mean(1).clamp(0, 1) for row in rows]
    scale = max(1, _SIDE // side)
    bands = [torch.cat([_framed(each, scale) for each in row], 1) for row in grey]
    widest = max(band.shape[1] for band in bands)
    padded = [torch.nn.functional.pad(band, (0, widest - band.shape[1]), value=1) for band in bands]
    pixels = (torch.cat(padded) * 255).round().to(torch.uint8).numpy()
    return Picture(said, base64.b64encode(grey_png(pixels)).decode())


def _framed(image_HW: Tensor, scale: int) -> Tensor:
    """Larger, with a white frame."""
    large = image_HW.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return torch.nn.functional.pad(large, (2, 2, 2, 2), value=1)


def grey_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 8 bits a pixel, `[H, W]` (ISO/IEC 15948)."""
    height, width = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
