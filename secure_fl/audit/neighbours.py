"""Neighbouring data sets that are hard on a private mechanism, and a tiny linear model on which
coupling shows.

Examples are `[N, V, ...]`: N examples of V views. Random neighbours find almost nothing: in high
dimension they are orthogonal to all others. What finds coupling is the hub, an example whose key is
what all others have in common, so that it takes a share of every softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import torch
from torch import Generator, Tensor, nn

from secure_fl.models.heads import EncoderProjector


def linear_model(width: int) -> EncoderProjector:
    """The identity as a linear layer, `[N, width]` -> `(h, z)`: inputs are the embeddings."""
    layer = nn.Linear(width, width, bias=False)
    nn.init.eye_(layer.weight)
    return EncoderProjector(layer, nn.Identity())


def spread(count: int, views: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Examples in random directions, their views close together: `[count, views, *shape]`."""
    centre = torch.randn(count, 1, *shape, generator=generator)
    return centre + 0.3 * torch.randn(count, views, *shape, generator=generator)


def fan(
    count: int,
    views: int,
    shape: tuple[int, ...],
    generator: Generator,
    *,
    shared: float,
    agreement: float,
) -> Tensor:
    """Anchors around one common direction, keys away from it: `[count, views, *shape]`; `shared` is
    the cosine of two anchors, `agreement` that of an anchor and its keys.
    """
    width = prod(shape)
    basis = torch.linalg.qr(torch.randn(width, min(width, 2 * count + 1), generator=generator))[0].T
    own, apart = (basis[(first + torch.arange(count)) % len(basis)] for first in (1, 1 + count))
    anchors = shared**0.5 * basis[0] + (1 - shared) ** 0.5 * own
    along = min(1.0, agreement / (1 - shared) ** 0.5)
    keys = along * own + (1 - along**2) ** 0.5 * apart
    rows: Tensor = width**0.5 * torch.stack([anchors] + [keys] * (views - 1), 1).reshape(
        count, views, *shape
    )
    return rows


CLOUDS: Mapping[str, Callable[[int, int, tuple[int, ...], Generator], Tensor]] = {
    "quiet fan": partial(fan, shared=0.1, agreement=0.55),
    "loud fan": partial(fan, shared=0.75, agreement=0.5),
    "spread": spread,
}
"""In a quiet fan anchors agree with their keys until a hub comes; in a loud one they repel."""


def _common(others: Tensor) -> Tensor:
    """The direction that the others' anchors share, as long as they are."""
    mean = others[:, 0].mean(0)
    direction: Tensor = mean / mean.norm().clamp_min(1e-12)
    return direction * float(others[:, 0].flatten(1).norm(dim=1).mean())


def _hub(others: Tensor, generator: Generator) -> Tensor:
    """An anchor like nobody's, keys in the common direction of all others' anchors."""
    odd = torch.randn(others.shape[2:], generator=generator)
    return torch.stack([odd] + [_common(others)] * (others.shape[1] - 1))


def _opposite(others: Tensor, _: Generator) -> Tensor:
    """A hub whose anchor points away from all others."""
    return torch.stack([-_common(others)] + [_common(others)] * (others.shape[1] - 1))


def _random(others: Tensor, generator: Generator) -> Tensor:
    return torch.randn(others.shape[1:], generator=generator) * others.std()


NEWCOMERS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {
    "random": _random,
    "hub": _hub,
    "centre": lambda others, _: _common(others).expand(others.shape[1:]),
    "opposite": _opposite,
    "duplicate": lambda others, _: others[0].clone(),
    "zero": lambda others, _: torch.zeros_like(others[0]),
    "nan": lambda others, _: torch.full_like(others[0], torch.nan),
    "huge": lambda others, generator: 1e30 * _random(others, generator),
}
"""Kinds of example `[V, ...]` by which neighbours differ, made from the others `[N, V, ...]`."""

FINITE = tuple(name for name in NEWCOMERS if name not in ("nan", "huge"))
"""Those on which a loss itself, without a mechanism that zeroes what is not finite, has a value."""
