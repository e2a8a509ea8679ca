"""The dimension-scaled regulariser from a row's energy in the client's own dimensions, without its
target matrix.

With ẑ a unit row, U_S the `[D, S]` orthonormal columns of the own dimensions, c = ẑU_S, e = ‖c‖²
and a = α − 1, the target ẑ + a(cU_Sᵀ) has length n = √(1 + (α²−1)e). The squared distance to it is
a²e, and to its unit vector

    2 − 2(1 + ae)/n = 2a²e(1 − e) / (n(n + 1 + ae)),

the right side without cancellation (but for 1 − e, taken as 0 below 8 ulp: such a row is its own
target). Every form's gradient at ẑ, along the sphere, is ω(cU_Sᵀ − eẑ) with one weight ω a row. So
value and gradient cost 2·N·D·S flops each, where the rotated target itself costs 4·N·D².
Definition: `reference.dsr_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from secure_fl_kernels.reference.losses import DSRForm, own_dims, scaling

_ORTHONORMAL_WITHIN = 1e-5
FORMS: tuple[DSRForm, ...] = ("code", "paper", "normalized")


@dataclass(frozen=True, eq=False)
class Subspace:
    """A client's own dimensions and the form of the regulariser.

    Attributes:
        dims: int64 `[S]`, all different, of the basis where there is one.
        alpha: their scale, at least 1.
        basis: `[D, D]` with orthonormal columns, or None for the axes.
        form: as in `reference.dsr_loss`.

        narrowest: the fewest columns that rows may have.

    Raises:
        ValueError: the basis is not orthonormal to 1e-5 (`reference.dsr_loss` takes any), the form
            is unknown, alpha is below 1, or the dimensions are none of the basis's; from `columns`,
            where rows are narrower than they.
    """

    dims: Tensor
    alpha: float = 10.0
    basis: Tensor | None = None
    form: DSRForm = "code"
    narrowest: int = field(init=False)

    def __post_init__(self) -> None:
        scaling(self.alpha)
        reach = int(self.dims.max()) + 1 if self.dims.numel() else 0
        own_dims(self.dims, reach if self.basis is None else len(self.basis))
        # read here once: asking the tensor at every loss would wait for a GPU
        object.__setattr__(self, "narrowest", reach)
        if self.form not in FORMS:
            raise ValueError(f"unknown form {self.form!r}; it is 'code', 'paper' or 'normalized'")
        if self.basis is not None:
            own = self.basis[:, self.dims.to(self.basis.device)].double()
            gram = own.T @ own - torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
            if not float(gram.abs().max()) <= _ORTHONORMAL_WITHIN:
                raise ValueError(f"the basis is not orthonormal to {_ORTHONORMAL_WITHIN}")

    def columns(self, like: Tensor) -> Tensor:
        """U_S, `[D, S]`, for rows like `like`: on their device, as wide, and in at
        least float32.
        """
        width = like.shape[1]
        if width < self.narrowest or (self.basis is not None and width != len(self.basis)):
            needed = self.narrowest if self.basis is None else len(self.basis)
            raise ValueError(f"rows are {width} wide, and the own dimensions need {needed}")
        dims, dtype = (
            self.dims.to(like.device),
            torch.float64 if like.dtype == torch.float64 else torch.float32,
        )
        if self.basis is None:
            every = torch.arange(like.shape[1], device=like.device)
            return (every.unsqueeze(1) == dims).to(dtype)
        return self.basis.to(like.device, dtype).index_select(1, dims)


def values(energy: Tensor, alpha: float, form: str, views: int) -> Tensor:
    """The regulariser, mean over the views, from the rows' energies `[views · N]`."""
    squares = _squares(energy, alpha, form).reshape(views, -1)
    if form != "code":
        return squares.mean()
    return (_lengths(squares) / squares.shape[1]).mean()


def weights(energy: Tensor, alpha: float, form: str, views: int) -> Tensor:
    """ω `[views · N]`: the gradient of `values` at row i, along the sphere, is
    ω_i(c_iU_Sᵀ − e_iẑ_i).
    """
    count = len(energy)
    if form == "paper":
        return torch.full_like(energy, -2 * (alpha - 1) / count)
    length = (1 + (alpha**2 - 1) * energy).sqrt()
    if form == "normalized":
        return -2 * (alpha - 1) / count / length
    frobenius = _lengths(_squares(energy, alpha, form).reshape(views, -1))
    scale = torch.where(frobenius == 0, torch.zeros_like(frobenius), frobenius.reciprocal())
    return -(alpha - 1) / count * scale.repeat_interleave(count // views) / length


def _squares(energy: Tensor, alpha: float, form: str) -> Tensor:
    """Squared distance of every row to its target."""
    if form == "paper":
        return (alpha - 1) ** 2 * energy
    length = (1 + (alpha**2 - 1) * energy).sqrt()
    outside = (1 - energy).masked_fill(energy > 1 - 8 * torch.finfo(energy.dtype).eps, 0.0)
    return 2 * (alpha - 1) ** 2 * energy * outside / (length * (length + 1 + (alpha - 1) * energy))


def _lengths(squares: Tensor) -> Tensor:
    """Frobenius norm of each view `[views]`, zero at the square root's corner."""
    frobenius = squares.sum(1).sqrt()
    corner = frobenius <= 8 * torch.finfo(squares.dtype).eps * squares.shape[1] ** 0.5
    return torch.where(corner, torch.zeros_like(frobenius), frobenius)
