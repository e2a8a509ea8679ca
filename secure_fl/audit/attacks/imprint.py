"""Examples out of the gradient of a linear layer that sees them, in closed form.

A linear layer with a bias has ∂L/∂W = Σ δ ⊗ x and ∂L/∂b = Σ δ over its inputs x: a row's quotient
is a δ-weighted mean of them, and where one alone has moved a row, that one itself, exactly (Phong
et al. 2017, IACR 2017/715; Boenisch et al., arXiv 2112.02918). A convolution's quotient is such a
mean over all its patches.

`Imprint` is a module that makes this so for nearly all of a batch (Fowl et al., arXiv 2110.13057):
its rows measure one brightness against rising thresholds, and those that an example passes all pass
on the same gradient. Differences of neighbours hold the examples between two thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

_FLOOR = 1e-6
"""Of the largest bias' gradient: a row with less has seen nothing but rounding."""
Keep = Callable[[Tensor], object]


class Watched(nn.Module):
    """An encoder whose inputs the auditor hears of: the truth that attacks are held against."""

    def __init__(self, inner: nn.Module, keep: Keep) -> None:
        super().__init__()
        self.inner, self._keep = inner, keep

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.any()):  # zeros measure how wide the encoder is
            self._keep(x.detach().cpu().clone())
        found: Tensor = self.inner(x)
        return found


class Imprint(nn.Module):
    """What a malicious server would put before an encoder: `x` -> `x` and a little of itself.

    Attributes:
        bins: rows that measure; `spread` turns their sum into a shift of the example.
    """

    def __init__(self, encoder: nn.Module, examples: Tensor, bins: int, seed: int) -> None:
        """`examples`: of the law that thresholds are quantiles of; not the client's."""
        super().__init__()
        size = prod(examples.shape[1:])
        self.bins, self.spread = nn.Linear(size, bins), nn.Linear(bins, size, bias=False)
        self.encoder = encoder
        generator = torch.Generator().manual_seed(seed)
        towards = 0.01 * torch.randn(size, generator=generator) / size**0.5
        levels = (examples.flatten(1) @ towards).quantile((torch.arange(bins) + 0.5) / bins)
        with torch.no_grad():
            self.bins.weight.copy_(towards.expand(bins, -1))
            self.bins.bias.copy_(-levels)
            shift = 100 * torch.randn(size, generator=generator) / (bins * size**0.5)
            self.spread.weight.copy_(shift[:, None].expand(-1, bins))

    def forward(self, x: Tensor) -> Tensor:
        moved = self.spread(functional.relu(self.bins(x.flatten(1))))
        found: Tensor = self.encoder(x + moved.view_as(x))
        return found


def quotients(weight: Tensor, bias: Tensor) -> Tensor:
    """What rows of a layer's gradient say that its input was, `[rows, ...]`.

    Args:
        weight: the gradient of its weights, `[K, ...]`.
        bias: of its bias, `[K]`. Rows without one say nothing and are left out.
    """
    weight, bias = weight.double(), bias.double()
    moved = bias.abs() > _FLOOR * bias.abs().max()
    shape = (-1, *[1] * (weight.ndim - 1))
    return (weight[moved] / bias[moved].view(shape)).float()


def between(weight: Tensor, bias: Tensor) -> Tensor:
    """`quotients` of the differences of neighbouring rows, and of the last."""
    differences = [torch.cat([each[:-1] - each[1:], each[-1:]]) for each in (weight, bias)]
    return quotients(*differences)


def first_layer(encoder: nn.Module) -> tuple[str, nn.Module] | None:
    """The first module with weights; None where there is none, or it has no bias and so tells
    nothing in closed form.
    """
    for name, module in encoder.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        tells = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and module.bias is not None
        return (name, module) if tells else None
    return None


def whole(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether each row of the layer sees a whole example, rather than patches of it."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel() == prod(shape)
