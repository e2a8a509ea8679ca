"""Sums of one-hot blocks: all that the server needs of its clients' changes, and all it will see of them."""

from __future__ import annotations

import torch
from torch import Tensor


class BlockSum:
    """K running sums of weighted vectors: adding client i's change to block k adds zeros to all other blocks.

    Memory is O(K·width), whatever the number of clients. Sums are kept in float64, so that their order hardly matters.
    """

    def __init__(self, blocks: int, width: int) -> None:
        self.sums = torch.zeros(blocks, width, dtype=torch.float64)
        self.weights = torch.zeros(blocks, dtype=torch.float64)
        self.counts = torch.zeros(blocks, dtype=torch.int64)

    def add(self, block: int, vector: Tensor, weight: float) -> None:
        """Add `weight · vector` to one block."""
        self.sums[block].add_(vector.double(), alpha=weight)
        self.weights[block] += weight
        self.counts[block] += 1

    def moved(self, vectors: Tensor) -> Tensor:
        """`vectors` `[K, width]` plus each block's weighted mean; a block without weight stays as it was."""
        weight = self.weights[:, None]
        mean = torch.where(weight > 0, self.sums / weight.clamp_min(1e-300), torch.zeros_like(self.sums))
        return (vectors.double() + mean).float()
