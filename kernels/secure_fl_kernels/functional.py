"""The losses as operators: `torch.compile`, autograd and fake tensors know them; `dispatch` says who computes them.

Signatures and definitions are those of `reference`. Only NT-Xent and uniformity, which are quadratic in the rows, have
faster forms; the linear ones are re-exported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels import dispatch, reference
from secure_fl_kernels.cpu import ntxent, uniform
from secure_fl_kernels.reference import (
    align_loss,
    distillation_loss,
    dsr_loss,
    spectral_attraction,
    spectral_moment,
)

__all__ = [
    "align_loss",
    "distillation_loss",
    "dsr_loss",
    "nt_xent_loss",
    "spectral_attraction",
    "spectral_moment",
    "uniformity_loss",
]


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss over two views `[N, D]`; see `reference.nt_xent_loss`."""
    first, second = reference.pair(z1, z2)
    rows = 2 * len(first)
    if not dispatch.use_tiles(first, rows, ntxent.fits(rows, temperature, first.dtype)):
        return reference.nt_xent_loss(first, second, temperature)
    loss: Tensor = _ntxent(reference.normalize(torch.cat([first, second])), temperature)[0]
    return loss


def uniformity_loss(z: Tensor, t: float = 2.0) -> Tensor:
    """Uniformity of `[N, D]`; see `reference.uniformity_loss`."""
    z = reference.rows(z)
    if len(z) < 2 or not dispatch.use_tiles(z, len(z), uniform.fits(t, z.dtype)):
        return reference.uniformity_loss(z, t)
    loss: Tensor = _uniformity(reference.normalize(z), t)[0]
    return loss


@torch.library.custom_op("secure_fl::ntxent", mutates_args=())
def _ntxent(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return ntxent.forward(z.contiguous(), temperature, torch.get_num_threads())


@_ntxent.register_fake
def _(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return z.new_empty(()), z.new_empty(z.shape[0])


@torch.library.custom_op("secure_fl::ntxent_gradient", mutates_args=())
def _ntxent_gradient(z: Tensor, sums: Tensor, temperature: float) -> Tensor:
    return ntxent.backward(z.contiguous(), sums, temperature, torch.get_num_threads())


@_ntxent_gradient.register_fake
def _(z: Tensor, sums: Tensor, temperature: float) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


@torch.library.custom_op("secure_fl::uniformity", mutates_args=())
def _uniformity(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
    return uniform.forward(z.contiguous(), t, torch.get_num_threads())


@_uniformity.register_fake
def _(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
    return z.new_empty(()), torch.empty_like(z, memory_format=torch.contiguous_format)


def _keep_ntxent(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.temperature = inputs[1]  # type: ignore[attr-defined]


def _ntxent_backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
    z, sums = ctx.saved_tensors  # type: ignore[attr-defined]
    return grad * _ntxent_gradient(z, sums, ctx.temperature), None  # type: ignore[attr-defined]


def _keep_uniformity(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _uniformity_backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
    return grad * ctx.saved_tensors[0], None  # type: ignore[attr-defined]


_ntxent.register_autograd(_ntxent_backward, setup_context=_keep_ntxent)
_uniformity.register_autograd(_uniformity_backward, setup_context=_keep_uniformity)
