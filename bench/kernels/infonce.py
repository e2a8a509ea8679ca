"""InfoNCE of queries against keys, which no symmetry halves."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.case import Floor, Kernel
from bench.kernels.providers import compiled_naive, naive, ours, square_bytes
from secure_fl_kernels import functional, reference

TEMPERATURE = 0.2


def _ours(q: Tensor, k: Tensor) -> Tensor:
    return functional.info_nce_loss(q, k, TEMPERATURE)


def _naive(q: Tensor, k: Tensor) -> Tensor:
    return reference.info_nce_loss(q, k, TEMPERATURE)


KERNEL = Kernel(
    name="infonce",
    title="InfoNCE at temperature 0.2; rows are queries, and as many keys",
    inputs=lambda case: case.views(case.rows),
    providers=(
        *ours(_ours),
        naive(_naive, square_bytes(14)),
        compiled_naive(_naive, square_bytes(6)),
    ),
    exact=lambda _: _naive,
    exact_bytes=square_bytes(28),
    tiles64=lambda _: _ours,
    floor=lambda case, _: Floor(8 * case.rows**2 * case.dimension, 2 * case.rows**2),
    rows=(1024, 4096),
)
