"""Noise in the shape of a run's examples: models and augmentations are tried on it first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Noise in the examples' shape.

    Attributes:
        shape: of one.
        device: where the model is.
        largest: most examples in one batch of the run.
    """

    shape: tuple[int, ...]
    device: torch.device
    largest: int = 64

    def noise(self, count: int, scale: float = 1.0) -> Tensor:
        """`[count, *shape]` within [0, `scale`)."""
        generator = torch.Generator().manual_seed(count)
        return (scale * torch.rand(count, *self.shape, generator=generator)).to(self.device)

    @property
    def sizes(self) -> list[int]:
        """Sizes of batches to try, up to the largest: a branch may begin at any."""
        smaller = {size for size in (7, 17, 33, 65, 129, 257, 513) if size < self.largest}
        return sorted(smaller | {max(2, self.largest)})
