"""Which implementation computes a function: asked for by `SECURE_FL_KERNELS`, or the fastest that
is valid for the tensors.

`auto` takes Triton on a GPU, the tiles on the processor where there are enough rows to pay for
them, and plain torch for all else. `triton` and `cpu` insist, `reference` is plain torch. Triton
serves tensors on the processor only when it interprets (`TRITON_INTERPRET=1`, for tests); float64
takes the tiles or plain torch everywhere.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Provider = Literal["triton", "cpu", "reference"]
Request = Literal["auto", "triton", "cpu", "reference"]
VARIABLE = "SECURE_FL_KERNELS"
PROVIDERS: tuple[Request, ...] = ("auto", "triton", "cpu", "reference")

FEWEST_ROWS = 512
"""Below it plain torch is as fast on the processor: a tile or two, and Python around them."""


class ProviderError(ValueError):
    """The environment asks for a provider that does not exist or cannot serve these tensors."""


def requested() -> Request:
    """The provider that the environment asks for.

    Raises:
        ProviderError: it is not one of `PROVIDERS`.
    """
    name = os.environ.get(VARIABLE, "auto")
    for provider in PROVIDERS:
        if name == provider:
            return provider
    raise ProviderError(f"{VARIABLE}={name!r} is not one of {', '.join(PROVIDERS)}")


def interpreting() -> bool:
    """Whether Triton runs its kernels in Python on the processor."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def choose(z: Tensor, rows: int | None = None, tiles: bool = True) -> Provider:
    """Who computes a function of tensors like `z`.

    Args:
        rows: rows of the similarity matrix, of functions that are quadratic in them; None for
            the others.
        tiles: whether the processor's own form exists and its exponentials stay in range.

    Raises:
        ProviderError: the one insisted on cannot serve these tensors.
    """
    request = requested()
    if request == "reference":
        return "reference"
    if z.device.type != "cpu":
        return _elsewhere(z, request)
    if request == "triton" and not interpreting():
        raise ProviderError(
            f"{VARIABLE}=triton, and the tensors are on the processor, where Triton only "
            "interprets (TRITON_INTERPRET=1)"
        )
    if request == "triton" and z.dtype != torch.float64:
        return "triton"
    enough = request != "auto" or rows is None or rows >= FEWEST_ROWS
    return "cpu" if tiles and enough else "reference"


def _elsewhere(z: Tensor, request: Request) -> Provider:
    if request == "cpu":
        raise ProviderError(f"{VARIABLE}=cpu, and the tensors are on {z.device}")
    if z.device.type != "cuda" or find_spec("triton") is None:
        if request == "triton":
            what = (
                "triton is not installed"
                if z.device.type == "cuda"
                else f"the tensors are on {z.device}"
            )
            raise ProviderError(f"{VARIABLE}=triton, and {what}")
        return "reference"
    return "reference" if z.dtype == torch.float64 else "triton"


def explain() -> str:
    """The choice in words, for `secure-fl doctor`."""
    request = requested()
    if request == "reference":
        return f"plain torch, since {VARIABLE}=reference"
    if request == "cpu":
        return f"symmetric tiles on the processor, since {VARIABLE}=cpu"
    gpu = (
        "on a GPU plain torch, since triton is not installed"
        if find_spec("triton") is None
        else "on a GPU Triton kernels"
    )
    if request == "triton":
        there = "interpreted on the processor" if interpreting() else "refused on the processor"
        return f"{gpu}, {there}, since {VARIABLE}=triton"
    return f"{gpu}; on the processor symmetric tiles from {FEWEST_ROWS} rows on, plain torch below"
