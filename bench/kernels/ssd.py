"""SSD's quadratic losses with and without the dimension-scaled regulariser, fused and apart.

A setting names the loss, the regulariser's form, its basis and |S|, the number of own dimensions: a
tenth of the width, as ten clients have them. What the regulariser costs is the ratio of two
settings of one provider.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.case import TILES, Case, Floor, Function, Inputs, Kernel, Provider
from bench.kernels.providers import naive, ours, square_bytes
from secure_fl_kernels import functional, reference
from secure_fl_kernels.subspace import Subspace

T, TEMPERATURE, ALPHA = 2.0, 0.2, 10.0
CLIENTS = 10
BASES = ("axes", "rotation")
WITHOUT = "no DSR"
APART = TILES + ", DSR apart"


def with_dsr(basis: str) -> str:
    """The setting with the regulariser."""
    return f"DSR, code form, {basis}, |S| = D/{CLIENTS}"


def _basis_of(setting: str) -> str | None:
    return next((basis for basis in BASES if setting == with_dsr(basis)), None)


def _subspace(width: int, basis: str, like: Tensor) -> Subspace:
    generator = torch.Generator().manual_seed(7)
    dims = torch.randperm(width, generator=generator)[: max(1, width // CLIENTS)]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[
        0
    ]
    return Subspace(
        dims, ALPHA, rotation.float().to(like.device) if basis == "rotation" else None, "code"
    )


class _Losses:
    """One of the two losses, with the regulariser or without; the subspace is drawn once for each
    width and device.
    """

    def __init__(self, loss: str, basis: str | None) -> None:
        self._contrastive, self._basis = loss == "nt_xent", basis
        self._subspaces: dict[tuple[int, torch.device], Subspace] = {}

    def subspace(self, z: Tensor) -> Subspace | None:
        if self._basis is None:
            return None
        key = z.shape[1], z.device
        if key not in self._subspaces:
            self._subspaces[key] = _subspace(z.shape[1], self._basis, z)
        return self._subspaces[key]

    def fused(self, z1: Tensor, z2: Tensor) -> Tensor:
        own = self.subspace(z1)
        if own is None:
            return self._without(z1, z2)
        if self._contrastive:
            return _total(functional.nt_xent_dsr_loss(z1, z2, TEMPERATURE, own))
        return _total(functional.align_uniformity_dsr_loss(z1, z2, T, own))

    def apart(self, z1: Tensor, z2: Tensor) -> Tensor:
        own = self.subspace(z1)
        assert own is not None
        return self._without(z1, z2) + _dsr(z1, z2, own)

    def plain(self, z1: Tensor, z2: Tensor) -> Tensor:
        if self._contrastive:
            base = reference.nt_xent_loss(z1, z2, TEMPERATURE)
        else:
            base = (
                reference.align_loss(z1, z2)
                + (reference.uniformity_loss(z1, T) + reference.uniformity_loss(z2, T)) / 2
            )
        own = self.subspace(z1)
        return base if own is None else base + _dsr(z1, z2, own)

    def _without(self, z1: Tensor, z2: Tensor) -> Tensor:
        if self._contrastive:
            return functional.nt_xent_loss(z1, z2, TEMPERATURE)
        return _total(functional.align_uniformity_loss(z1, z2, T))


def _total(terms: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(terms).sum()


def _dsr(z1: Tensor, z2: Tensor, own: Subspace) -> Tensor:
    first, second = (
        reference.dsr_loss(z, own.dims, own.alpha, own.basis, own.form) for z in (z1, z2)
    )
    return (first + second) / 2


def _providers(loss: str, bytes_per_element: float) -> tuple[Provider, ...]:
    found: list[Provider] = []
    for basis in (None, *BASES):
        setting, losses = WITHOUT if basis is None else with_dsr(basis), _Losses(loss, basis)
        found += ours(losses.fused, setting)
        if basis is not None:
            found += ours(losses.apart, setting, name=APART)[:1]
        found.append(naive(losses.plain, square_bytes(bytes_per_element), setting))
    return tuple(found)


def _exact(loss: str, setting: str) -> Function:
    return _Losses(loss, _basis_of(setting)).plain


def _tiles64(loss: str, setting: str) -> Function:
    return _Losses(loss, _basis_of(setting)).fused


def _halves(case: Case) -> Inputs:
    return case.views(case.rows // 2)


ALIGN_UNIFORMITY = Kernel(
    name="ssd",
    title="align + uniformity of two views at t = 2; rows are examples, so two matrices of "
    "similarities",
    inputs=lambda case: case.views(case.rows),
    providers=_providers("align_uniformity", 52),
    exact=lambda setting: _exact("align_uniformity", setting),
    exact_bytes=square_bytes(92),
    tiles64=lambda setting: _tiles64("align_uniformity", setting),
    floor=lambda case, _: Floor(2 * 3 * case.rows**2 * case.dimension, case.rows**2),
    rows=(1024, 4096),
)

NT_XENT = Kernel(
    name="ssd-ntxent",
    title="NT-Xent with the regulariser at temperature 0.2; rows are "
    "those of the similarity matrix",
    inputs=_halves,
    providers=_providers("nt_xent", 14),
    exact=lambda setting: _exact("nt_xent", setting),
    exact_bytes=square_bytes(28),
    tiles64=lambda setting: _tiles64("nt_xent", setting),
    floor=lambda case, _: Floor(4 * case.rows**2 * case.dimension, case.rows**2),
    rows=(1024, 4096),
)
