"""The losses that callers use: checked, dispatched to the fastest valid implementation, and
computed outside autocast.

Definitions and edges are those of `reference`. Functions that return several losses compute them in
one pass.

Shapes: rows are `[N, D]`, N examples of D features, on one device, and need not have unit length. A
loss is a scalar, and its gradient has the rows' shape and dtype.

Dtypes: float64, float32, bfloat16 and float16. The result is float64 for float64 and float32 for
all others, whose sums are float32 too: half-precision rows are widened on the processor, and Triton
takes them as they are. In float16 the gradient by a row shorter than about 1e-5 can be beyond that
dtype's range, and is infinite then, as plain torch's is.

Every function raises TypeError where it is not given floating-point tensors, ValueError where
shapes do not fit or a setting is impossible (a temperature that is not positive, say), and
`ProviderError`, a ValueError, where `SECURE_FL_KERNELS` asks for what cannot compute them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from secure_fl_kernels import dispatch, joint_operators, operators, reference
from secure_fl_kernels.cpu import ntxent, uniform
from secure_fl_kernels.padding import LARGEST_GROUP, WIDEST_DISTILLED
from secure_fl_kernels.subspace import Subspace

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _outside_autocast(loss: Callable[_P, _R]) -> Callable[_P, _R]:
    """Losses choose their own precision; autocast would halve that of the similarities."""

    @wraps(loss)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = (*args, *kwargs.values())
        first = next((each for each in given if isinstance(each, Tensor)), None)
        if first is None:
            kinds = ", ".join(type(each).__name__ for each in given)
            raise TypeError(f"tensors are needed, not {kinds or 'nothing'}")
        with torch.autocast(first.device.type, enabled=False):
            return loss(*args, **kwargs)

    return call


align_loss = _outside_autocast(reference.align_loss)
dsr_loss = _outside_autocast(reference.dsr_loss)
spectral_attraction = _outside_autocast(reference.spectral_attraction)


@_outside_autocast
def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss over two views `[N, D]`; see `reference.nt_xent_loss`.

    Args:
        temperature: divides the cosines; positive. SimCLR used 0.1 to 0.5.
    """
    return _nt_xent(z1, z2, temperature, None)[0]


@_outside_autocast
def nt_xent_dsr_loss(
    z1: Tensor, z2: Tensor, temperature: float, subspace: Subspace
) -> tuple[Tensor, Tensor]:
    """(NT-Xent, mean over the views of the dimension-scaled regulariser) over two views `[N, D]`,
    in one pass.
    """
    return _nt_xent(z1, z2, temperature, subspace)


@_outside_autocast
def uniformity_loss(z: Tensor, t: float = 2.0) -> Tensor:
    """Uniformity of `[N, D]`, N ≥ 2; see `reference.uniformity_loss`.

    Args:
        t: sharpness of the Gaussian on the sphere; positive.
    """
    reference.positive("t", t)
    fits = uniform.fits(t, _computed(z))
    provider, (z,) = _prepared((z,), len(z) if z.ndim else 0, fits)
    if provider == "reference" or len(z) < 2 or not fits:
        return reference.uniformity_loss(z, t)
    loss: Tensor = operators.uniformity(z, None, 1, t, 1.0, "code", provider)[0]
    return loss


@_outside_autocast
def align_uniformity_loss(z1: Tensor, z2: Tensor, t: float = 2.0) -> tuple[Tensor, Tensor]:
    """(alignment, mean uniformity of the views) of two views `[N, D]`, N ≥ 2, in one pass."""
    return _align_uniformity(z1, z2, t, None)[:2]


@_outside_autocast
def align_uniformity_dsr_loss(
    z1: Tensor, z2: Tensor, t: float, subspace: Subspace
) -> tuple[Tensor, Tensor, Tensor]:
    """(alignment, uniformity, mean over the views of the dimension-scaled regulariser) of two views
    `[N, D]`, N ≥ 2, in one pass.
    """
    return _align_uniformity(z1, z2, t, subspace)


@_outside_autocast
def info_nce_loss(q: Tensor, k: Tensor, temperature: float = 0.5) -> Tensor:
    """InfoNCE of queries `[N, D]` among keys `[K, D]`, N ≤ K, key i belonging to query i; see
    `reference.info_nce_loss`.
    """
    reference.positive("temperature", temperature)
    fits = k.ndim > 0 and ntxent.fits(len(k), temperature, _computed(q))
    provider, (q, k) = _prepared((q, k), max(len(q), len(k)) if fits else 0, fits)
    if provider == "reference" or q.shape[1] != k.shape[1] or len(k) < len(q) or q.dtype != k.dtype:
        return reference.info_nce_loss(q, k, temperature)
    loss: Tensor = operators.infonce(q, k, temperature, provider)[0]
    return loss


@_outside_autocast
def group_nt_xent_loss(z1: Tensor, z2: Tensor, group_size: int, temperature: float = 0.5) -> Tensor:
    """`[G]` losses of views `[G · group_size, D]`, within groups of consecutive examples; see
    `reference.group_nt_xent_loss`.
    """
    if dispatch.choose(z1) == "reference":
        return reference.group_nt_xent_loss(z1, z2, group_size, temperature)
    return _groups(z1, z2, group_size, temperature)[0]


@torch.no_grad()
@_outside_autocast
def group_nt_xent_gradients(
    z1: Tensor, z2: Tensor, group_size: int, temperature: float = 0.5
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(losses `[G]`, every group's own gradient by z1 and by z2, `[G · group_size, D]`, and its
    squared norm `[G]`).

    What a mechanism that clips whole groups starts from: row i of a gradient belongs to group i //
    group_size alone.
    """
    return _groups(z1, z2, group_size, temperature)


@_outside_autocast
def spectral_moment(z1: Tensor, z2: Tensor) -> Tensor:
    """‖M‖²_F of all 2N unit vectors of two views `[N, D]`; see `reference.spectral_moment`."""
    if dispatch.choose(z1) != "triton" or z1.shape != z2.shape or z1.dtype != z2.dtype:
        return reference.spectral_moment(z1, z2)
    reference.rows(z1)
    value: Tensor = joint_operators.moment(torch.cat([z1, z2]))[0]
    return value


@_outside_autocast
def distillation_loss(
    h: Tensor,
    z: Tensor,
    temperature: float = 0.5,
    direction: reference.Direction = "projector_to_encoder",
) -> Tensor:
    """Mean KL between the softmaxes of `h` and `z`, both `[N, D]`; see
    `reference.distillation_loss`.
    """
    reference.positive("temperature", temperature)
    same = (
        h.shape == z.shape and h.dtype == z.dtype and h.ndim == 2 and h.shape[1] <= WIDEST_DISTILLED
    )
    if (
        dispatch.choose(z) != "triton"
        or not same
        or direction not in ("projector_to_encoder", "encoder_to_projector")
    ):
        return reference.distillation_loss(h, z, temperature, direction)
    reference.rows(z)
    target, source = (z, h) if direction == "projector_to_encoder" else (h, z)
    value: Tensor = joint_operators.distillation(target, source, temperature)[0]
    return value


def _groups(
    z1: Tensor, z2: Tensor, group_size: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reference.positive("temperature", temperature)
    first, second = reference.pair(z1, z2)
    if group_size < 1 or len(first) % group_size:
        raise ValueError(f"the examples do not fill groups of {group_size}")
    if dispatch.choose(z1) == "triton" and group_size <= LARGEST_GROUP and z1.dtype == z2.dtype:
        first, second, provider = z1, z2, "triton"
    else:
        provider = "cpu"
    loss, by_first, by_second, square = joint_operators.group_ntxent(
        first, second, group_size, temperature, provider
    )
    return loss, by_first, by_second, square


def _nt_xent(
    z1: Tensor, z2: Tensor, temperature: float, subspace: Subspace | None
) -> tuple[Tensor, Tensor]:
    reference.positive("temperature", temperature)
    rows = 2 * len(z1) if z1.ndim else 0
    provider, (z1, z2) = _prepared((z1, z2), rows, ntxent.fits(rows, temperature, _computed(z1)))
    if provider == "reference" or z1.shape != z2.shape or z1.dtype != z2.dtype:
        return reference.nt_xent_loss(z1, z2, temperature), _plain_dsr(z1, z2, subspace)
    x = torch.cat([z1, z2])
    loss, dsr, *_ = operators.ntxent(
        x, _columns(x, subspace), temperature, *_settings(subspace), provider
    )
    return loss, dsr


def _align_uniformity(
    z1: Tensor, z2: Tensor, t: float, subspace: Subspace | None
) -> tuple[Tensor, Tensor, Tensor]:
    reference.positive("t", t)
    fits = uniform.fits(t, _computed(z1))
    provider, (z1, z2) = _prepared((z1, z2), len(z1) if z1.ndim else 0, fits)
    if (
        provider == "reference"
        or z1.shape != z2.shape
        or z1.dtype != z2.dtype
        or len(z1) < 2
        or not fits
    ):
        both = (reference.uniformity_loss(z1, t) + reference.uniformity_loss(z2, t)) / 2
        return reference.align_loss(z1, z2), both, _plain_dsr(z1, z2, subspace)
    x = torch.cat([z1, z2])
    loss, align, dsr, *_ = operators.uniformity(
        x, _columns(x, subspace), 2, t, *_settings(subspace), provider
    )
    return align, loss, dsr


def _computed(z: Tensor) -> torch.dtype:
    """The dtype that sums are kept in."""
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _prepared(
    rows: tuple[Tensor, ...], count: int, fits: bool
) -> tuple[dispatch.Provider, tuple[Tensor, ...]]:
    """Who computes, and the checked rows in the dtype that it takes."""
    provider = dispatch.choose(rows[0], count, fits)
    checked = tuple(reference.rows(z) for z in rows)
    return provider, rows if provider == "triton" else checked


def _columns(x: Tensor, subspace: Subspace | None) -> Tensor | None:
    """U_S for the operator; alpha 1 needs it too, for NaN to pass through."""
    return None if subspace is None else subspace.columns(x)


def _settings(subspace: Subspace | None) -> tuple[float, str]:
    return (1.0, "code") if subspace is None else (subspace.alpha, subspace.form)


def _plain_dsr(z1: Tensor, z2: Tensor, subspace: Subspace | None) -> Tensor:
    if subspace is None:
        return z1.new_zeros(())
    both = [
        reference.dsr_loss(z, subspace.dims, subspace.alpha, subspace.basis, subspace.form)
        for z in (z1, z2)
    ]
    return (both[0] + both[1]) / 2
