"""Losses between a projector and its encoder, and of both views' second moment: linear in the rows.

On the processor `secure_fl_kernels` computes them by plain torch, so there they are compared with
what a compiler makes of it, and on a GPU with one kernel each.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.kernels.case import Case, Floor, Function, Kernel
from bench.kernels.providers import compiled_naive, naive, ours
from secure_fl_kernels import functional, reference

TEMPERATURE = 0.5
Work = Callable[[Case], float]
Floors = Callable[[Case, str], Floor | None]


def _row_bytes(copies: float) -> Work:
    return lambda case: 4 * copies * case.rows * case.dimension


def _distilled(h: Tensor, z: Tensor) -> Tensor:
    return functional.distillation_loss(h, z, TEMPERATURE)


def _plain_distilled(h: Tensor, z: Tensor) -> Tensor:
    return reference.distillation_loss(h, z, TEMPERATURE)


def _kernel(
    name: str, title: str, fused: Function, plain: Function, work: Work, floor: Floors
) -> Kernel:
    triton = ours(fused, bytes_of=_row_bytes(6))[-1]
    return Kernel(
        name=name,
        title=title,
        inputs=lambda case: case.views(case.rows),
        providers=(triton, naive(plain, _row_bytes(16)), compiled_naive(plain, _row_bytes(8))),
        exact=lambda _: plain,
        exact_bytes=_row_bytes(32),
        floor=floor,
        work=work,
        rows=(4096, 65536),
        full_rows=(1024, 4096, 16384, 65536),
    )


DISTILLATION = _kernel(
    "distillation",
    "KL divergence of the encoder's softmax from the projector's at temperature 0.5; rows are "
    "examples, both of width D",
    _distilled,
    _plain_distilled,
    lambda case: 60.0 * case.rows * case.dimension,
    lambda case, _: Floor(exps=2 * case.rows * case.dimension),
)

MOMENT = _kernel(
    "moment",
    "squared norm of the second moment of all unit rows of two views; rows are examples",
    functional.spectral_moment,
    reference.spectral_moment,
    lambda case: 8.0 * case.rows * case.dimension**2,
    lambda case, _: Floor(flops=6 * case.rows * case.dimension**2),
)
