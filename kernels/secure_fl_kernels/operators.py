"""The losses as torch operators: what autograd, `torch.compile` and fake tensors have to know
of them.

A forward returns the losses and, after them, what its gradient needs; a `provider` chosen when the
operator is called goes along, so that both halves are computed by the same one. Tensors beside the
losses are not differentiable, and there is no second derivative.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from secure_fl_kernels import subspace
from secure_fl_kernels.padding import kept, padded_own, padded_rows

Context = Any
"""torch's autograd context, which takes any attribute."""


def twin(name: str, provider: str) -> ModuleType:
    """The twin that computes: triton's is imported when it is first needed."""
    return import_module(f"secure_fl_kernels.{'gpu' if provider == 'triton' else 'cpu'}.{name}")


def _kept(x: Tensor, provider: str) -> torch.dtype:
    """The dtype of unit rows and own coordinates."""
    return kept(x) if provider == "triton" else x.dtype


def _empty_rows(x: Tensor, provider: str, views: int = 1) -> Tensor:
    """Unit rows as the provider keeps them: Triton pads each view to whole tiles."""
    if provider != "triton":
        return x.new_empty(x.shape)
    rows, width = padded_rows(x.shape[0] // views, x.shape[1])
    return x.new_empty((views * rows, width), dtype=_kept(x, provider))


def _empty_own(
    x: Tensor, columns: Tensor | None, provider: str, views: int = 1
) -> tuple[Tensor, Tensor]:
    """(own coordinates, energies), empty without columns."""
    dtype, precise = _kept(x, provider), single(x).dtype
    if columns is None:
        return x.new_empty((0, 0), dtype=dtype), x.new_empty(0, dtype=precise)
    rows, wide = x.shape[0], columns.shape[1]
    if provider == "triton":
        tall, wide = padded_own(rows // views, wide)
        rows = views * tall
    return x.new_empty((rows, wide), dtype=dtype), x.new_empty(x.shape[0], dtype=precise)


def single(x: Tensor, *shape: Any) -> Tensor:
    """Per-row results, in at least float32."""
    return x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _dsr(energy: Tensor, alpha: float, form: str, views: int) -> Tensor:
    return subspace.values(energy, alpha, form, views) if energy.numel() else energy.new_zeros(())


def _weights(grad: Tensor, energy: Tensor, alpha: float, form: str, views: int) -> Tensor | None:
    return grad * subspace.weights(energy, alpha, form, views) if energy.numel() else None


# NT-Xent with the dimension-scaled regulariser


@torch.library.custom_op("secure_fl::ntxent", mutates_args=())
def ntxent(
    x: Tensor, columns: Tensor | None, temperature: float, alpha: float, form: str, provider: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(NT-Xent, regulariser, unit rows, inverse lengths, row sums, own coordinates, energies) of
    two views' rows `[2N, D]`.
    """
    loss, z, inverse, sums, own, energy = twin("ntxent", provider).forward(
        x.contiguous(), temperature, columns
    )
    return loss, _dsr(energy, alpha, form, 2), z, inverse, sums, own, energy


@ntxent.register_fake
def _(
    x: Tensor, columns: Tensor | None, temperature: float, alpha: float, form: str, provider: str
) -> tuple[Tensor, ...]:
    rows = x.shape[0]
    return (
        single(x),
        single(x),
        _empty_rows(x, provider, 2),
        single(x, rows),
        single(x, 2, rows),
        *_empty_own(x, columns, provider, 2),
    )


@torch.library.custom_op("secure_fl::ntxent_gradient", mutates_args=())
def ntxent_gradient(
    grad: Tensor,
    grad_dsr: Tensor,
    z: Tensor,
    inverse: Tensor,
    sums: Tensor,
    own: Tensor,
    energy: Tensor,
    columns: Tensor | None,
    dimension: int,
    dtype: torch.dtype,
    temperature: float,
    alpha: float,
    form: str,
    provider: str,
) -> Tensor:
    """Gradient by the raw rows, `[2N, dimension]`."""
    weights = _weights(grad_dsr, energy, alpha, form, 2)
    gradient: Tensor = twin("ntxent", provider).backward(
        grad, weights, z, inverse, sums, own, columns, temperature, dimension, dtype
    )
    return gradient


@ntxent_gradient.register_fake
def _(
    grad: Tensor, grad_dsr: Tensor, z: Tensor, inverse: Tensor, sums: Tensor, own: Tensor,
    energy: Tensor, columns: Tensor | None, dimension: int, dtype: torch.dtype, *settings: Any,
) -> Tensor:  # fmt: skip
    return z.new_empty((inverse.shape[0], dimension), dtype=dtype)


def _keep_ntxent(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, columns, *ctx.settings = inputs
    ctx.shape = (x.shape[1], x.dtype)
    ctx.save_for_backward(*output[2:], columns)
    ctx.mark_non_differentiable(*output[2:])


def _ntxent_backward(
    ctx: Context, grad: Tensor, grad_dsr: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    return (
        ntxent_gradient(grad, grad_dsr, *ctx.saved_tensors, *ctx.shape, *ctx.settings),
        None,
        None,
        None,
        None,
        None,
    )


ntxent.register_autograd(_ntxent_backward, setup_context=_keep_ntxent)


# Uniformity of one or two views, their alignment, and the regulariser


@torch.library.custom_op("secure_fl::uniformity", mutates_args=())
def uniformity(
    x: Tensor, columns: Tensor | None, views: int, t: float, alpha: float, form: str, provider: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(uniformity, alignment, regulariser, inverse lengths, pull, its rates, own coordinates,
    energies) of `[views · N, D]`.
    """
    loss, align, inverse, pull, rates, own, energy = twin("uniform", provider).forward(
        x.contiguous(), views, t, columns
    )
    return loss, align, _dsr(energy, alpha, form, views), inverse, pull, rates, own, energy


@uniformity.register_fake
def _(
    x: Tensor, columns: Tensor | None, views: int, t: float, alpha: float, form: str, provider: str
) -> tuple[Tensor, ...]:
    pull = single(x, *_empty_rows(x, provider, views).shape)
    inverse, rates = single(x, x.shape[0]), single(x, views)
    return (
        single(x),
        single(x),
        single(x),
        inverse,
        pull,
        rates,
        *_empty_own(x, columns, provider, views),
    )


@torch.library.custom_op("secure_fl::uniformity_gradient", mutates_args=())
def uniformity_gradient(
    grad: Tensor,
    grad_align: Tensor,
    grad_dsr: Tensor,
    x: Tensor,
    inverse: Tensor,
    pull: Tensor,
    rates: Tensor,
    own: Tensor,
    energy: Tensor,
    columns: Tensor | None,
    views: int,
    t: float,
    alpha: float,
    form: str,
    provider: str,
) -> Tensor:
    """Gradient of the joint loss by its rows as they came, before they had unit length."""
    weights = _weights(grad_dsr, energy, alpha, form, views)
    by_align = grad_align if views == 2 else None
    gradient: Tensor = twin("uniform", provider).backward(
        grad, by_align, weights, x.contiguous(), inverse, pull, rates, own, columns, t
    )
    return gradient


@uniformity_gradient.register_fake
def _(grad: Tensor, grad_align: Tensor, grad_dsr: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_uniformity(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, columns, *ctx.settings = inputs
    ctx.save_for_backward(x, *output[3:], columns)
    ctx.mark_non_differentiable(*output[3:])


def _uniformity_backward(
    ctx: Context, grad: Tensor, grad_align: Tensor, grad_dsr: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    return (
        uniformity_gradient(grad, grad_align, grad_dsr, *ctx.saved_tensors, *ctx.settings),
        None,
        None,
        None,
        None,
        None,
        None,
    )


uniformity.register_autograd(_uniformity_backward, setup_context=_keep_uniformity)


# InfoNCE of queries against keys


@torch.library.custom_op("secure_fl::infonce", mutates_args=())
def infonce(
    q: Tensor, k: Tensor, temperature: float, provider: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, unit queries, their inverse lengths, unit keys, theirs, row sums) of `[N, D]` and
    `[K, D]`.
    """
    loss, zq, inverse_q, zk, inverse_k, sums = twin("infonce", provider).forward(
        q.contiguous(), k.contiguous(), temperature
    )
    return loss, zq, inverse_q, zk, inverse_k, sums


@infonce.register_fake
def _(q: Tensor, k: Tensor, temperature: float, provider: str) -> tuple[Tensor, ...]:
    rows, keys = q.shape[0], k.shape[0]
    return (
        single(q),
        _empty_rows(q, provider),
        single(q, rows),
        _empty_rows(k, provider),
        single(q, keys),
        single(q, 2, rows),
    )


@torch.library.custom_op("secure_fl::infonce_gradient", mutates_args=())
def infonce_gradient(
    grad: Tensor,
    zq: Tensor,
    inverse_q: Tensor,
    zk: Tensor,
    inverse_k: Tensor,
    sums: Tensor,
    dimension: int,
    dtype: torch.dtype,
    temperature: float,
    provider: str,
) -> tuple[Tensor, Tensor]:
    """Gradients by raw queries `[N, dimension]` and keys `[K, dimension]`."""
    by_q, by_k = twin("infonce", provider).backward(
        grad, zq, inverse_q, zk, inverse_k, sums, temperature, dimension, dtype
    )
    return by_q, by_k


@infonce_gradient.register_fake
def _(
    grad: Tensor, zq: Tensor, inverse_q: Tensor, zk: Tensor, inverse_k: Tensor, sums: Tensor,
    dimension: int, dtype: torch.dtype, *settings: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    by_q, by_k = (
        z.new_empty((inverse.shape[0], dimension), dtype=dtype)
        for z, inverse in ((zq, inverse_q), (zk, inverse_k))
    )
    return by_q, by_k


def _keep_infonce(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, _, *ctx.settings = inputs
    ctx.shape = (q.shape[1], q.dtype)
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _infonce_backward(ctx: Context, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    by_q, by_k = infonce_gradient(grad, *ctx.saved_tensors, *ctx.shape, *ctx.settings)
    return by_q, by_k, None, None


infonce.register_autograd(_infonce_backward, setup_context=_keep_infonce)
