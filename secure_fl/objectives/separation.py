"""Who owns which dimensions: SSD moves each client's embeddings towards dimensions of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from secure_fl.config import ObjectiveConfig
from secure_fl.errors import ObjectiveError
from secure_fl.seeds import generator_of
from secure_fl_kernels.reference import DSRForm
from secure_fl_kernels.subspace import Subspace

_ORTHONORMAL_WITHIN = 1e-6


@dataclass(frozen=True)
class Separation:
    """One client's own dimensions.

    Attributes:
        dims: int64 `[S]`, distinct.
        alpha: scale of these dimensions, at least 1.
        basis: `[D, D]`, orthonormal columns, or None for the axes; the target operator
            is ((ẑU)⊙d)Uᵀ.

    Raises:
        ObjectiveError: dims repeat or lie outside the basis, alpha is below 1, or the basis is not
            orthonormal to 1e-6.
    """

    dims: Tensor = field(repr=False)
    alpha: float = 10.0
    basis: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        dims = self.dims
        whole = dims.dtype == torch.int64 and dims.ndim == 1 and len(dims) > 0
        if not whole or len(dims.unique()) != len(dims) or int(dims.min()) < 0:
            problem = "not a set of dimensions"
            remedy = "give a non-empty int64 vector of different dimensions"
            raise ObjectiveError(
                problem, field="separation.dims", value=dims.tolist(), remedy=remedy
            )
        if not self.alpha >= 1:
            problem = "below 1"
            remedy = "the paper uses 10; 1 switches DSR off"
            raise ObjectiveError(problem, field="separation.alpha", value=self.alpha, remedy=remedy)
        if self.basis is not None:
            self._check_basis(self.basis)

    def subspace(self, form: DSRForm) -> Subspace:
        """What the fused losses take: these dimensions with the regulariser's form."""
        return Subspace(self.dims, self.alpha, self.basis, form)

    def _check_basis(self, basis: Tensor) -> None:
        square, wide = basis.ndim == 2 and basis.shape[0] == basis.shape[1], basis.double()
        error = wide.T @ wide - torch.eye(len(wide)) if square else torch.full((1,), torch.inf)
        if float(error.abs().max()) > _ORTHONORMAL_WITHIN:
            remedy = "take `random_basis(dimension, seed)`"
            raise ObjectiveError(
                "not orthonormal", field="separation.basis", value=tuple(basis.shape), remedy=remedy
            )
        if int(self.dims.max()) >= len(basis):
            problem = "outside the basis"
            remedy = f"keep them below {len(basis)}"
            raise ObjectiveError(
                problem, field="separation.dims", value=int(self.dims.max()), remedy=remedy
            )


def random_basis(dimension: int, seed: int) -> Tensor:
    """A random rotation `[D, D]`: QR of a Gaussian matrix, signs fixed, float64."""
    generator = generator_of(seed, "basis")
    q, r = torch.linalg.qr(
        torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    )
    basis: Tensor = q * r.diagonal().sign()
    return basis


@dataclass(frozen=True)
class SeparationPlan:
    """Every client's separation: consecutive slices of one random permutation of the dimensions, as
    in SSD's code.

    Attributes:
        dims: int64 `[slices, S]` with S = ⌊D / clients⌋, at least 1.
    """

    dims: Tensor = field(repr=False)
    alpha: float
    basis: Tensor | None = field(repr=False)
    rule: str

    @classmethod
    def draw(
        cls, config: ObjectiveConfig, dimension: int, clients: int, seed: int
    ) -> SeparationPlan:
        """The public plan of a federation.

        Raises:
            ObjectiveError: more clients than dimensions, and slices are not to be shared.
        """
        if clients > dimension and config.assign != "modulo":
            problem = f"{clients} clients cannot each own one of {dimension} dimensions"
            remedy = 'set it to "modulo" (clients share slices), or widen model.embedding'
            raise ObjectiveError(
                problem, field="objective.assign", value=config.assign, remedy=remedy
            )
        size = max(1, dimension // clients)
        generator = generator_of(seed, "separation")
        order = torch.randperm(dimension, generator=generator)
        slices = min(clients, dimension)
        basis = random_basis(dimension, seed) if config.basis == "shared" else None
        return cls(order[: slices * size].reshape(slices, size), config.alpha, basis, config.assign)

    def of(self, client: int, position: int) -> Separation:
        """The separation of a client that stands at `position` in this round's list."""
        index = position if self.rule == "position" else client
        return Separation(self.dims[index % len(self.dims)], self.alpha, self.basis)
