"""Per-sample gradients as torch operators: what `torch.compile` and fake tensors have to know
of them.

Each picks its provider when it runs, so that one compiled program serves all. `per_sample` checks
the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec

import torch
from torch import Tensor

from secure_fl_kernels import dispatch
from secure_fl_kernels.cpu import gradients as cpu_gradients
from secure_fl_kernels.reference import gradients as reference_gradients
from secure_fl_kernels.reference.gradients import Convolution, accumulator

_P = ParamSpec("_P")


@contextmanager
def _full_precision(x: Tensor) -> Iterator[None]:
    """Products in float32 and no less, whatever autocast and torch's precision of products say: a
    bound on lengths depends on it.
    """
    units: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    units = [unit for unit in units if unit.fp32_precision not in ("none", "ieee")]
    before = [unit.fp32_precision for unit in units]
    for unit in units:
        unit.fp32_precision = "ieee"
    try:
        with torch.autocast(x.device.type, enabled=False):
            yield
    finally:
        for unit, precision in zip(units, before, strict=True):
            unit.fp32_precision = precision


def _precise(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """The same function, computed in `_full_precision`."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        first = args[0]
        assert isinstance(first, Tensor)
        with _full_precision(first):
            return function(*args, **kwargs)

    return call


def _provider(*tensors: Tensor) -> ModuleType:
    """The file that computes for these tensors, by the widest of them: float64 has no
    Triton form.
    """
    provider = dispatch.choose(max(tensors, key=Tensor.element_size))
    if provider == "triton":
        from secure_fl_kernels.gpu import gradients

        return gradients
    return cpu_gradients if provider == "cpu" else reference_gradients


@torch.library.custom_op("secure_fl::square_norms", mutates_args=())
@_precise
def square_norms(gradients: Tensor) -> Tensor:
    """‖g_b‖² of the rows of `[B, P]`."""
    result: Tensor = _provider(gradients).square_norms(gradients)
    return result


@square_norms.register_fake
def _(gradients: Tensor) -> Tensor:
    return gradients.new_empty(gradients.shape[0], dtype=accumulator(gradients.dtype))


@torch.library.custom_op("secure_fl::clip_and_sum", mutates_args=())
@_precise
def clip_and_sum(
    gradients: Tensor, square_norms: Tensor, max_norm: float, noise: Tensor | None
) -> Tensor:
    """Σ_b f_b g_b + noise, `[P]`."""
    result: Tensor = _provider(gradients).clip_and_sum(gradients, square_norms, max_norm, noise)
    return result


@clip_and_sum.register_fake
def _(gradients: Tensor, *_: Any) -> Tensor:
    return gradients.new_empty(gradients.shape[1], dtype=accumulator(gradients.dtype))


@torch.library.custom_op("secure_fl::ghost_square_norms_linear", mutates_args=())
@_precise
def ghost_linear(activations: Tensor, backprops: Tensor, bias: bool) -> Tensor:
    """‖Σ_t b_t a_tᵀ‖² + bias · ‖Σ_t b_t‖² of `[B, T, I]` and `[B, T, O]`."""
    result: Tensor = _provider(activations, backprops).ghost_square_norms_linear(
        activations, backprops, bias
    )
    return result


@ghost_linear.register_fake
def _(activations: Tensor, backprops: Tensor, _bias: bool) -> Tensor:
    return activations.new_empty(
        activations.shape[0],
        dtype=accumulator(torch.promote_types(activations.dtype, backprops.dtype)),
    )


@torch.library.custom_op("secure_fl::ghost_square_norms_conv2d", mutates_args=())
@_precise
def ghost_conv2d(
    inputs: Tensor,
    backprops: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    bias: bool,
    group_size: int,
) -> Tensor:
    """The same of a convolution over `[B, C, H, W]`, `[B / group_size]`; the fake function takes
    `group_size` for the last argument.
    """
    shape = Convolution(kernel_size, stride, padding, dilation, groups)
    result: Tensor = _provider(inputs, backprops).ghost_square_norms_conv2d(
        inputs, backprops, shape, bias, group_size
    )
    return result


@ghost_conv2d.register_fake
def _(inputs: Tensor, backprops: Tensor, *geometry: Any) -> Tensor:
    return inputs.new_empty(
        inputs.shape[0] // geometry[-1],
        dtype=accumulator(torch.promote_types(inputs.dtype, backprops.dtype)),
    )


def _refuse(*_: object) -> None:
    raise RuntimeError(
        "norms and clipped sums of per-sample gradients are not differentiable: detach() what is "
        "passed in, or write the formula in plain torch"
    )


for _operator in (square_norms, clip_and_sum, ghost_linear, ghost_conv2d):
    _operator.register_autograd(_refuse)
