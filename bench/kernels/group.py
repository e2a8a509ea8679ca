"""NT-Xent within groups of examples, the block-diagonal loss of group-wise privacy."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.case import Case, Function, Kernel, Provider
from bench.kernels.providers import naive, ours
from secure_fl_kernels import functional, reference

TEMPERATURE = 0.2
SIZES = (16, 256)


def _setting(size: int) -> str:
    return f"groups of {size}"


def _size(setting: str) -> int:
    return int(setting.rsplit(" ", 1)[1])


def _ours(size: int) -> Function:
    def function(z1: Tensor, z2: Tensor) -> Tensor:
        return functional.group_nt_xent_loss(z1, z2, size, TEMPERATURE)

    return function


def _naive(size: int) -> Function:
    def function(z1: Tensor, z2: Tensor) -> Tensor:
        return reference.group_nt_xent_loss(z1, z2, size, TEMPERATURE)

    return function


def _bytes(size: int) -> float:
    return 4.0 * 14 * size


def _providers(size: int) -> tuple[Provider, ...]:
    def bytes_of(case: Case) -> float:
        return case.rows * (_bytes(size) + 40 * case.dimension)

    return (
        *ours(_ours(size), _setting(size), bytes_of),
        naive(_naive(size), bytes_of, _setting(size)),
    )


KERNEL = Kernel(
    name="group",
    title="NT-Xent within groups at temperature 0.2; rows are examples, two views of each",
    inputs=lambda case: case.views(case.rows),
    providers=tuple(provider for size in SIZES for provider in _providers(size)),
    exact=lambda setting: _naive(_size(setting)),
    work=lambda case: 2.0 * case.rows * max(SIZES) * case.dimension,
    rows=(4096,),
    full_rows=(1024, 4096, 16384),
)
