"""Losses whose value and gradient leave together, as torch operators: what only Triton has a form
of its own for, beyond plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secure_fl_kernels.operators import Context, single, twin
from secure_fl_kernels.padding import padded_rows


@torch.library.custom_op("secure_fl::moment", mutates_args=())
def moment(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(‖M‖²_F, inverse lengths, M padded) of `[N, D]`."""
    from secure_fl_kernels.gpu import moment as gpu

    return gpu.forward(x.contiguous())


@moment.register_fake
def _(x: Tensor) -> tuple[Tensor, ...]:
    width = padded_rows(*x.shape)[1]
    return single(x), single(x, x.shape[0]), single(x, width, width)


@torch.library.custom_op("secure_fl::moment_gradient", mutates_args=())
def moment_gradient(grad: Tensor, x: Tensor, inverse: Tensor, second: Tensor) -> Tensor:
    """Gradient of `moment` by its rows as they came, before they were brought to unit length."""
    from secure_fl_kernels.gpu import moment as gpu

    return gpu.backward(grad, x.contiguous(), inverse, second)


@moment_gradient.register_fake
def _(grad: Tensor, x: Tensor, inverse: Tensor, second: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_moment(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _moment_backward(ctx: Context, grad: Tensor, *_: Tensor) -> Any:
    return moment_gradient(grad, *ctx.saved_tensors)


moment.register_autograd(_moment_backward, setup_context=_keep_moment)


@torch.library.custom_op("secure_fl::distillation", mutates_args=())
def distillation(
    target: Tensor, source: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean KL of the target's softmax from the source's, its gradient by both) of
    `[N, D]` rows.
    """
    from secure_fl_kernels.gpu import distil

    return distil.forward(target.contiguous(), source.contiguous(), temperature)


@distillation.register_fake
def _(target: Tensor, source: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    return single(target), target.new_empty(target.shape), source.new_empty(source.shape)


def _keep_gradients(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _distillation_backward(ctx: Context, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    by_target, by_source = ctx.saved_tensors
    return (grad * by_target).to(by_target.dtype), (grad * by_source).to(by_source.dtype), None


distillation.register_autograd(_distillation_backward, setup_context=_keep_gradients)


@torch.library.custom_op("secure_fl::group_ntxent", mutates_args=())
def group_ntxent(
    first: Tensor, second: Tensor, size: int, temperature: float, provider: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(losses `[G]`, each group's gradient by both views, its squared norm `[G]`) of
    `[G · size, D]` views.
    """
    loss, by_first, by_second, square = twin("groups", provider).forward(
        first.contiguous(), second.contiguous(), size, temperature
    )
    return loss, by_first, by_second, square


@group_ntxent.register_fake
def _(
    first: Tensor, second: Tensor, size: int, temperature: float, provider: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    groups = first.shape[0] // size
    return (
        single(first, groups),
        first.new_empty(first.shape),
        second.new_empty(second.shape),
        single(first, groups),
    )


def _group_backward(ctx: Context, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    by_first, by_second, _square = ctx.saved_tensors
    each = grad.repeat_interleave(by_first.shape[0] // grad.shape[0])[:, None]
    return (
        (each * by_first).to(by_first.dtype),
        (each * by_second).to(by_second.dtype),
        None,
        None,
        None,
    )


group_ntxent.register_autograd(_group_backward, setup_context=_keep_gradients)
