"""Losses of secure_fl on plain tensors. Imports torch only and raises ValueError and TypeError.

    from secure_fl_kernels import nt_xent_loss

    nt_xent_loss(z1, z2, temperature=0.2).backward()

Public names, each imported when it is used; `functional` says what they take and refuse:

- losses of `[N, D]`: `nt_xent_loss`, `info_nce_loss`, `uniformity_loss`, `align_loss`, `dsr_loss`,
  `distillation_loss`, `spectral_attraction`, `spectral_moment`;
- several in one pass: `align_uniformity_loss`, `nt_xent_dsr_loss`, `align_uniformity_dsr_loss`,
  with the client's own dimensions in a `Subspace`;
- within groups, for private training: `group_nt_xent_loss`, `group_nt_xent_gradients`;
- of per-sample gradients: `square_norms`, `clip_factors`, `clip_and_sum`,
  `ghost_square_norms_linear`, `ghost_square_norms_conv2d`;
- `ProviderError`: `SECURE_FL_KERNELS` asks for what cannot be.

`reference` holds them in plain torch: the definition every faster implementation is measured
against. `functional` has the same functions as operators, and `dispatch` says who computes them.
`cpu` never holds a matrix of similarities.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_fl_kernels.dispatch import ProviderError as ProviderError
    from secure_fl_kernels.functional import align_loss as align_loss
    from secure_fl_kernels.functional import align_uniformity_dsr_loss as align_uniformity_dsr_loss
    from secure_fl_kernels.functional import align_uniformity_loss as align_uniformity_loss
    from secure_fl_kernels.functional import distillation_loss as distillation_loss
    from secure_fl_kernels.functional import dsr_loss as dsr_loss
    from secure_fl_kernels.functional import group_nt_xent_gradients as group_nt_xent_gradients
    from secure_fl_kernels.functional import group_nt_xent_loss as group_nt_xent_loss
    from secure_fl_kernels.functional import info_nce_loss as info_nce_loss
    from secure_fl_kernels.functional import nt_xent_dsr_loss as nt_xent_dsr_loss
    from secure_fl_kernels.functional import nt_xent_loss as nt_xent_loss
    from secure_fl_kernels.functional import spectral_attraction as spectral_attraction
    from secure_fl_kernels.functional import spectral_moment as spectral_moment
    from secure_fl_kernels.functional import uniformity_loss as uniformity_loss
    from secure_fl_kernels.per_sample import clip_and_sum as clip_and_sum
    from secure_fl_kernels.per_sample import clip_factors as clip_factors
    from secure_fl_kernels.per_sample import ghost_square_norms_conv2d as ghost_square_norms_conv2d
    from secure_fl_kernels.per_sample import ghost_square_norms_linear as ghost_square_norms_linear
    from secure_fl_kernels.per_sample import square_norms as square_norms
    from secure_fl_kernels.subspace import Subspace as Subspace

_NAMES = {
    "dispatch": ["ProviderError"],
    "functional": [
        "align_loss",
        "align_uniformity_dsr_loss",
        "align_uniformity_loss",
        "distillation_loss",
        "dsr_loss",
        "group_nt_xent_gradients",
        "group_nt_xent_loss",
        "info_nce_loss",
        "nt_xent_dsr_loss",
        "nt_xent_loss",
        "spectral_attraction",
        "spectral_moment",
        "uniformity_loss",
    ],
    "per_sample": [
        "clip_and_sum",
        "clip_factors",
        "ghost_square_norms_conv2d",
        "ghost_square_norms_linear",
        "square_norms",
    ],
    "subspace": ["Subspace"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """The public object of this name, its module imported now (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*_HOME, *globals()})
