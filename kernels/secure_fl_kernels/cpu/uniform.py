"""Uniformity of one or two views in one pass over symmetric tiles: loss and gradient together, 3N²D
flops, O(N·D) memory.

With z unit rows, w_ij = exp(−t‖z_i − z_j‖²) and S = Σ_{i≠j} w_ij:
    loss = log(S / N(N−1)),   ∂loss/∂z_i = (4t/S) Σ_j w_ij (z_j − z_i).

w_ij = b_i b_j exp(2t z_i·z_j) with b_i = exp(−t‖z_i‖²), so a tile is one product and one
exponential; and the gradient's part along z_i drops out on the way to the raw row, so no row sums
of w are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from secure_fl_kernels.cpu.sphere import add_own, energies, tangent, unit
from secure_fl_kernels.cpu.threads import shared, tiled
from secure_fl_kernels.cpu.tiles import Tile, cut_of, triangle


def fits(t: float, dtype: torch.dtype) -> bool:
    """Whether exp(−4t), the kernel of opposite unit rows, stays a normal number."""
    return 4 * t < 0.95 * -log(torch.finfo(dtype).tiny)


@tiled
def forward(x: Tensor, views: int, t: float, columns: Tensor | None) -> tuple[Tensor, ...]:
    """(uniformity, mean over the views; alignment of two views or 0; inverse lengths; pull; rates;
    own coordinates; energies).

    Raw rows are `[views · N, D]`, one view after the other. The pull `[views · N, D]`, times its
    view's rate, is uniformity's gradient by the unit rows, up to its part along them.
    """
    z, inverse = unit(x)
    parts = [_one_view(view, t) for view in z.chunk(views)]
    pull = parts[0][1] if views == 1 else torch.cat([part for _, part in parts])
    total, count, half = torch.stack([part for part, _ in parts]), len(z) // views, len(z) // 2
    uniformity = (total / (count * (count - 1))).log().mean()
    align = (z[:half] - z[half:]).square().sum() / half if views == 2 else z.new_zeros(())
    return uniformity, align, inverse, pull, 4 * t / (views * total), *energies(z, columns)


def backward(
    grad: Tensor,
    grad_align: Tensor | None,
    weights: Tensor | None,
    x: Tensor,
    inverse: Tensor,
    pull: Tensor,
    rates: Tensor,
    own: Tensor,
    columns: Tensor | None,
    t: float,
) -> Tensor:
    """Gradient `[M, D]` by the raw rows of grad · uniformity + grad_align · alignment, plus the
    regulariser's with weights ω.
    """
    z = x * inverse[:, None]
    gradient = (pull.reshape(len(rates), -1) * (grad * rates)[:, None]).reshape(pull.shape)
    if grad_align is not None:
        half = len(z) // 2
        factor = grad_align * (2 / half)
        gradient[:half] -= factor * z[half:]
        gradient[half:] -= factor * z[:half]
    return tangent(add_own(gradient, weights, own, columns), z, inverse)


def _one_view(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """(Σ_{i≠j} w_ij, Σ_j w_ij z_j `[N, D]`) of unit rows `[N, D]`."""
    count, width, cut = *z.shape, cut_of(len(z))
    scaled, decay = z * (2 * t * cut.unit) ** 0.5, torch.exp(-t * z.square().sum(1))
    damped = decay[:, None] * z

    def work(tiles: Iterator[Tile]) -> Tensor:
        sums, buffer = z.new_zeros(count + 1, width), z.new_empty(cut.edge, cut.edge)
        total = sums[count, 0]
        for tile in tiles:
            rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            kernel = cut.exponential(torch.mm(scaled[rows], scaled[columns].T, out=tile.of(buffer)))
            if tile.zero:
                kernel.fill_diagonal_(0.0)
            mass = torch.dot(decay[rows], torch.mv(kernel, decay[columns]))
            total += mass if tile.symmetric else 2 * mass
            sums[rows].addmm_(kernel, damped[columns])
            if not tile.symmetric:
                sums[columns].addmm_(kernel.T, damped[rows])
        return sums

    sums = shared(work, triangle(count))
    return sums[count, 0].clone(), sums[:count].mul_(decay[:, None])
