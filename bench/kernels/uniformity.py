"""Uniformity: one pass over tiles against the Gram matrix and Wang & Isola's own pdist form."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pdist

from bench.kernels.case import Floor, Kernel, Provider
from bench.kernels.providers import compiled_naive, naive, ours, square_bytes
from secure_fl_kernels import functional, reference

PDIST = "pdist"
T = 2.0


def _ours(z: Tensor) -> Tensor:
    return functional.uniformity_loss(z, T)


def _naive(z: Tensor) -> Tensor:
    return reference.uniformity_loss(z, T)


def _pdist(z: Tensor) -> Tensor:
    return pdist(reference.normalize(z)).square().mul(-T).exp().mean().log()


KERNEL = Kernel(
    name="uniformity",
    title="uniformity at t = 2; rows are examples",
    inputs=lambda case: (case.random(case.rows, case.dimension),),
    providers=(
        *ours(_ours),
        naive(_naive, square_bytes(26)),
        compiled_naive(_naive, square_bytes(26)),
        Provider(PDIST, lambda _: _pdist, square_bytes(10)),
    ),
    exact=lambda _: _naive,
    exact_bytes=square_bytes(46),
    tiles64=lambda _: _ours,
    floor=lambda case, _: Floor(3 * case.rows**2 * case.dimension, case.rows**2 / 2),
)
