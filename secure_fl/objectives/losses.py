"""The losses with typed errors: what callers use.

Definitions, shapes and edges are in `secure_fl_kernels.reference`; `secure_fl_kernels.dispatch`
says who computes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from secure_fl.errors import ConfigError, ObjectiveError
from secure_fl.objectives.separation import Separation
from secure_fl_kernels import dispatch, functional
from secure_fl_kernels.reference import Direction, DSRForm
from secure_fl_kernels.subspace import Subspace

_Result = TypeVar("_Result")

_PAIR = "pass two floating tensors of one shape [N, D]"


def align_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """(1/N) Σ ‖ẑ¹ᵢ − ẑ²ᵢ‖² for two views `[N, D]`. Source: Wang & Isola 2020."""
    return _call(functional.align_loss, _PAIR, z1, z2)


def uniformity_loss(z: Tensor, t: float = 2.0) -> Tensor:
    """log mean exp(−t‖ẑᵢ − ẑⱼ‖²) over pairs of `[N, D]`, N ≥ 2. Source: Wang & Isola 2020."""
    remedy = "pass [N, D] with N at least 2: leave out batches of one example"
    return _call(functional.uniformity_loss, remedy, z, t)


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's contrastive loss over two views `[N, D]`. Source: Chen et al. 2020."""
    return _call(functional.nt_xent_loss, _PAIR, z1, z2, temperature)


def align_uniformity_loss(
    z1: Tensor, z2: Tensor, t: float, own: Subspace | None = None
) -> dict[str, Tensor]:
    """`align`, `uniformity` and, with own dimensions, `dsr` of two views `[N, D]`, in one pass."""
    remedy = "pass two [N, D] with N at least 2: leave out batches of one example"
    if own is None:
        align, uniformity = _call(functional.align_uniformity_loss, remedy, z1, z2, t)
        return {"align": align, "uniformity": uniformity}
    _check_width(z1, own.dims, own.basis)
    terms = _call(functional.align_uniformity_dsr_loss, remedy, z1, z2, t, own)
    return dict(zip(("align", "uniformity", "dsr"), terms, strict=True))


def nt_xent_dsr_loss(
    z1: Tensor, z2: Tensor, temperature: float, own: Subspace
) -> tuple[Tensor, Tensor]:
    """(NT-Xent, the regulariser's mean over the views) of two views `[N, D]`, in one pass."""
    _check_width(z1, own.dims, own.basis)
    return _call(functional.nt_xent_dsr_loss, _PAIR, z1, z2, temperature, own)


def spectral_attraction(z1: Tensor, z2: Tensor) -> Tensor:
    """−2 mean ẑ¹ᵢ·ẑ²ᵢ for two views `[N, D]`. Source: HaoChen et al. 2021."""
    return _call(functional.spectral_attraction, _PAIR, z1, z2)


def spectral_moment(z1: Tensor, z2: Tensor) -> Tensor:
    """‖E ẑẑᵀ‖²_F over both views `[N, D]`. Source: HaoChen et al. 2021."""
    return _call(functional.spectral_moment, _PAIR, z1, z2)


def dsr_loss(z: Tensor, separation: Separation, form: DSRForm = "code") -> Tensor:
    """Dimension-scaled regulariser of `[N, D]`. Source: SSD, arXiv 2508.01251; `code` as its
    authors' program.

    Raises:
        ObjectiveError: z is narrower than the separation's dimensions, or unlike its basis.
    """
    _check_width(z, separation.dims, separation.basis)
    remedy = 'pass a floating [N, D] and form = "code", "paper" or "normalized"'
    return _call(
        functional.dsr_loss, remedy, z, separation.dims, separation.alpha, separation.basis, form
    )


def distillation_loss(
    h: Tensor, z: Tensor, temperature: float = 0.5, direction: Direction = "projector_to_encoder"
) -> Tensor:
    """Mean KL between the softmaxes of `h` and `z`, both `[N, D]`. Source: SSD, arXiv 2508.01251.

    Raises:
        ObjectiveError: h and z have different widths.
    """
    remedy = "h and z need one width: leave model.embedding out, or set objective.delta = 0"
    return _call(functional.distillation_loss, remedy, h, z, temperature, direction)


def implementation() -> str:
    """Who computes the quadratic losses here, in words.

    Raises:
        ConfigError: `SECURE_FL_KERNELS` names no provider.
    """
    try:
        return dispatch.explain()
    except dispatch.ProviderError as error:
        raise _bad_provider(error) from None


def _check_width(z: Tensor, dims: Tensor, basis: Tensor | None) -> None:
    width = z.shape[-1] if z.ndim else 0
    needed = int(dims.max()) + 1
    if width < needed or (basis is not None and width != len(basis)):
        needed = needed if basis is None else len(basis)
        problem = f"z is {width} wide, the separation {needed}"
        remedy = "draw the plan for the projector's width"
        raise ObjectiveError(problem, field="separation", value=("N", *z.shape[1:]), remedy=remedy)


def _bad_provider(error: dispatch.ProviderError) -> ConfigError:
    remedy = "unset it, or choose one of " + ", ".join(dispatch.PROVIDERS)
    return ConfigError(
        str(error), field=dispatch.VARIABLE, value=os.environ.get(dispatch.VARIABLE), remedy=remedy
    )


def _call(loss: Callable[..., _Result], remedy: str, *arguments: Any) -> _Result:
    """Run a kernel; its refusals become typed errors, without the number of rows, a secret."""
    try:
        return loss(*arguments)
    except dispatch.ProviderError as error:
        raise _bad_provider(error) from None
    except (ValueError, TypeError) as error:
        shapes = [("N", *a.shape[1:]) if isinstance(a, Tensor) else a for a in arguments]
        raise ObjectiveError(str(error), field=loss.__name__, value=shapes, remedy=remedy) from None
