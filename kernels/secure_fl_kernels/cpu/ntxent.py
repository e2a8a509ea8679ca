"""NT-Xent in two passes over symmetric tiles: 4N²D flops instead of the 6N²D of a full matrix,
O(N·D) memory.

With z unit rows, s = z·zᵀ/τ, p(i) the partner of row i and r_i = Σ_k exp s_ik over all k but i
and p(i):
    loss = (1/M) Σ_i softplus(x_i), x_i = log r_i − s_{i,p(i)},
    ∂loss/∂z_i = (1/Mτ) [ Σ_k exp(s_ik)(1/R_i + 1/R_k) z_k − (σ(x_i) + σ(x_p)) z_{p(i)} ],
    R_i = r_i + exp s_{i,p(i)}.
Partners stay out of the sums because 1 − (their probability), which σ(x) is, would otherwise lose
its digits in a trained model.

Unit rows bound |s| by 1/τ, so no maximum is subtracted while exp(1/τ) times the number of rows
stays in range (`fits`). The products run at `torch.get_float32_matmul_precision()`; "medium" is
bfloat16 with float32 sums where the processor has AMX. The positives, which carry most of a trained
loss, are added apart in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.log_weights import Terms, expanded
from secure_fl_kernels.cpu.sphere import add_own, energies, soft_positive, tangent, unit
from secure_fl_kernels.cpu.threads import shared, tiled
from secure_fl_kernels.cpu.tiles import Cut, Tile, cut_of, two_views


def fits(rows: int, temperature: float, dtype: torch.dtype) -> bool:
    """Whether row sums of exp(±1/τ) stay inside the range of `dtype` without a shift."""
    return 1 / temperature + log(max(rows, 1)) < 0.95 * log(torch.finfo(dtype).max)


@tiled
def forward(
    x: Tensor, temperature: float, columns: Tensor | None, cut: Cut | None = None
) -> tuple[Tensor, ...]:
    """(loss, unit rows · √(u/τ), inverse lengths, `[2, M]`: x_i and s_{i,p(i)}, own coordinates,
    energies) of two views' raw rows `[M, D]`; u is the unit of similarities (`Cut`).
    """
    scaled, inverse = unit(x)
    cut = cut or cut_of(len(scaled))
    scale = (cut.unit / temperature) ** 0.5
    scaled.mul_(scale)

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = scaled.new_zeros(len(scaled)), _square(scaled, cut)
        ones = scaled.new_ones(len(buffer))
        for tile in tiles:
            kernel = _exponential(_similarities(scaled, tile, buffer), tile, cut)
            sums[tile.rows].addmv_(kernel, ones[: kernel.shape[1]])
            if not tile.symmetric:
                sums[tile.columns].addmv_(kernel.T, ones[: kernel.shape[0]])
        return sums

    half = len(scaled) // 2
    positive = (scaled[:half] * scaled[half:]).sum(1).div_(cut.unit).repeat(2)
    ahead = shared(work, two_views(half, cut.edge)).log() - positive
    return (
        soft_positive(ahead).mean(),
        scaled,
        inverse,
        torch.stack([ahead, positive]),
        *energies(scaled, columns, scale),
    )


@tiled
def backward(
    grad: Tensor,
    weights: Tensor | None,
    scaled: Tensor,
    inverse: Tensor,
    statistics: Tensor,
    own: Tensor,
    columns: Tensor | None,
    temperature: float,
    dimension: int,
    dtype: torch.dtype,
    cut: Cut | None = None,
) -> Tensor:
    """Gradient `[M, D]` by the raw rows of grad · loss, plus the regulariser's with weights ω.

    Args:
        cut: that of `forward`.
    """
    (ahead, positive), half = statistics, len(scaled) // 2
    cut = cut or cut_of(len(scaled))
    gradient = _pushed(scaled, -positive - soft_positive(ahead), 1 / temperature, cut)
    pull = torch.sigmoid(ahead)
    pull = (pull[:half] + pull[half:])[:, None]
    gradient[:half].addcmul_(pull, scaled[half:], value=-1)
    gradient[half:].addcmul_(pull, scaled[:half], value=-1)
    square = cut.unit / temperature
    gradient.mul_(grad * (square**-0.5 / (temperature * len(scaled))))
    return tangent(add_own(gradient, weights, own, columns), scaled, inverse, square)


def _pushed(scaled: Tensor, log_weights: Tensor, steepest: float, cut: Cut) -> Tensor:
    """Σ_k exp(s_ik)(w_i + w_k) z_k `[M, D]`."""
    terms = expanded(log_weights, steepest)

    def work(tiles: Iterator[Tile]) -> Tensor:
        gradient = torch.zeros_like(scaled)
        weighted = (
            _added(scaled, log_weights.exp(), cut)
            if terms is None
            else _in_exponent(scaled, terms, cut)
        )
        for tile in tiles:
            kernel = weighted(tile)
            gradient[tile.rows].addmm_(kernel, scaled[tile.columns])
            if not tile.symmetric:
                gradient[tile.columns].addmm_(kernel.T, scaled[tile.rows])
        return gradient

    gradient = shared(work, two_views(len(scaled) // 2, cut.edge))
    return gradient if terms is None else gradient.mul_(terms.factor)


def _added(scaled: Tensor, weights: Tensor, cut: Cut) -> Callable[[Tile], Tensor]:
    """Tiles of exp(s_ik)(w_i + w_k)."""
    buffer, sums = _square(scaled, cut), _square(scaled, cut)

    def weighted(tile: Tile) -> Tensor:
        factor = torch.add(weights[tile.rows, None], weights[None, tile.columns], out=tile.of(sums))
        return _exponential(_similarities(scaled, tile, buffer), tile, cut).mul_(factor)

    return weighted


def _in_exponent(scaled: Tensor, terms: Terms, cut: Cut) -> Callable[[Tile], Tensor]:
    """The same without the factor of `terms`."""
    buffer, left = _square(scaled, cut), terms.left * cut.unit

    def weighted(tile: Tile) -> Tensor:
        return _exponential(
            _similarities(scaled, tile, buffer).addmm_(
                left[tile.rows], terms.right[tile.columns].T
            ),
            tile,
            cut,
        )

    return weighted


def _square(z: Tensor, cut: Cut) -> Tensor:
    """Room for one tile, reused: a fresh one each time would cost its page faults."""
    return z.new_empty(cut.edge, cut.edge)


def _similarities(scaled: Tensor, tile: Tile, buffer: Tensor) -> Tensor:
    """One tile of s; overwrites `buffer`."""
    return torch.mm(scaled[tile.rows], scaled[tile.columns].T, out=tile.of(buffer))


def _exponential(similarities: Tensor, tile: Tile, cut: Cut) -> Tensor:
    """exp of one tile in place, zero for rows with themselves and their partners."""
    cut.exponential(similarities)
    return similarities.fill_diagonal_(0.0) if tile.zero else similarities
