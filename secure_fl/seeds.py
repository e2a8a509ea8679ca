"""Reproducible seeds: one master seed, a stream for every purpose.

These seeds make simulations repeatable. They are not secret and must never feed noise or masks.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator


def derive_seed(master: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`, independent of every other purpose's.

    SHA-256 over the labels, so that adding a purpose never shifts another's stream, and the result
    is the same on every platform.

    Example:
        `derive_seed(0, "pretrain", round_number, client_id)`
    """
    text = "/".join([str(master), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(master: int, *purpose: str | int) -> Generator:
    """A generator of torch's that begins at the seed of a purpose."""
    import torch

    return torch.Generator().manual_seed(derive_seed(master, *purpose))
