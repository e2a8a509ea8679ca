"""Every function in plain torch: short, differentiable, correct in float64. All faster forms are
judged by these.

`losses` holds the objectives, `gradients` what differential privacy does to per-sample gradients.
"""

from secure_fl_kernels.reference.losses import (
    SMALLEST_NORM,
    Direction,
    DSRForm,
    align_loss,
    distillation_loss,
    dsr_loss,
    dsr_target,
    group_nt_xent_loss,
    info_nce_loss,
    normalize,
    nt_xent_loss,
    own_dims,
    pair,
    positive,
    rows,
    scaling,
    spectral_attraction,
    spectral_moment,
    uniformity_loss,
)

__all__ = [
    "SMALLEST_NORM",
    "DSRForm",
    "Direction",
    "align_loss",
    "distillation_loss",
    "dsr_loss",
    "dsr_target",
    "group_nt_xent_loss",
    "info_nce_loss",
    "normalize",
    "nt_xent_loss",
    "own_dims",
    "pair",
    "positive",
    "rows",
    "scaling",
    "spectral_attraction",
    "spectral_moment",
    "uniformity_loss",
]
