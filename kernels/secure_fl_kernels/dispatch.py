"""Which implementation computes a loss: asked for by `SECURE_FL_KERNELS`, or the fastest that is valid for the tensors.

`auto` takes the tiles for tensors on the processor with enough rows to pay for them, and plain torch for all else;
`cpu` insists on the tiles, `reference` on plain torch.
"""

from __future__ import annotations

import os
from typing import Literal

from torch import Tensor

Provider = Literal["auto", "cpu", "reference"]
VARIABLE = "SECURE_FL_KERNELS"
PROVIDERS: tuple[Provider, ...] = ("auto", "cpu", "reference")

FEWEST_ROWS = 512
"""Below it plain torch is as fast: a tile or two, and Python around them."""


class ProviderError(ValueError):
    """The environment asks for a provider that does not exist or cannot serve these tensors."""


def requested() -> Provider:
    """The provider that the environment asks for.

    Raises:
        ProviderError: it is not one of `PROVIDERS`.
    """
    name = os.environ.get(VARIABLE, "auto")
    for provider in PROVIDERS:
        if name == provider:
            return provider
    raise ProviderError(f"{VARIABLE}={name!r} is not one of {', '.join(PROVIDERS)}")


def use_tiles(z: Tensor, rows: int, fits: bool) -> bool:
    """Whether a loss over `rows` rows like those of `z` goes to the tiles.

    Args:
        fits: whether its exponentials stay in range without a shift.

    Raises:
        ProviderError: `cpu` is insisted on and the tensors are elsewhere.
    """
    provider = requested()
    if provider == "cpu" and z.device.type != "cpu":
        raise ProviderError(f"{VARIABLE}=cpu, and the tensors are on {z.device}")
    if provider == "reference" or z.device.type != "cpu" or not fits:
        return False
    return provider == "cpu" or rows >= FEWEST_ROWS


def explain() -> str:
    """The choice in words, for `secure-fl doctor`."""
    provider = requested()
    if provider == "reference":
        return f"plain torch, since {VARIABLE}=reference"
    if provider == "cpu":
        return f"symmetric tiles on the processor, since {VARIABLE}=cpu"
    return f"symmetric tiles on the processor from {FEWEST_ROWS} rows on, plain torch below and on other devices"
