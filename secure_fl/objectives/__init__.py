"""Losses and their coupling, who owns which dimensions, and metrics of a representation.

Public names, each imported when it is used:

- `align_loss`: (1/N) Σ ‖ẑ¹ᵢ − ẑ²ᵢ‖² for two views `[N, D]`.
- `align_uniformity_loss`: `align`, `uniformity` (mean over the views) and, with own dimensions,
  `dsr` (likewise) of two views `[N, D]`, in one pass.
- `alignment`: Mean squared distance between two views' unit features `[N, F]`; 0 is best.
- `build_objective`: The objective named; `separation` is used by SSD only, which without one has no
  DSR and no distillation.
- `Coupling`: Ordered from none to full; clipping each example's gradient bounds its influence under
  `PER_EXAMPLE` only.
- `CrossEntropy`: Classification: the mean over a unit's rows of the cross-entropy with its label,
  int64 `[U]`.
- `distillation_loss`: Mean KL between the softmaxes of `h` and `z`, both `[N, D]`.
- `dsr_loss`: Dimension-scaled regulariser of `[N, D]`.
- `effective_rank`: exp of the entropy of the singular values' shares, for `[N, F]`: between 1 and
  min(N, F), 0 for zero features.
- `MaskedReconstruction`: Mean squared error between z and a random projection of the hidden cells.
- `nt_xent_dsr_loss`: (NT-Xent, mean over the views of the dimension-scaled regulariser) of two
  views `[N, D]`, in one pass.
- `nt_xent_loss`: SimCLR's contrastive loss over two views `[N, D]`.
- `NTXent`: SimCLR's loss; every example's term depends on the whole batch.
- `Objective`: A weighted sum of named terms, each declaring how it couples examples.
- `RandomFeatures`: Features of the kernel exp(−t‖u − v‖²).
- `Separation`: One client's own dimensions.
- `SeparationPlan`: Every client's separation: consecutive slices of one random permutation of the
  dimensions, as in SSD's code.
- `spectral_attraction`: −2 mean ẑ¹ᵢ·ẑ²ᵢ for two views `[N, D]`.
- `spectral_moment`: ‖E ẑẑᵀ‖²_F over both views `[N, D]`.
- `SpectralContrastive`: −2 E ẑ·ẑ⁺ + ‖E ẑẑᵀ‖²_F; examples meet in a `[D, D]` second moment only.
- `SpectralUnits`: Spectral contrastive: −2 ẑ¹·ẑ² + 2 mean over views of ẑᵀMẑ.
- `SSD`: align + β·uniformity + γ·DSR + δ·PD, each but align the mean over the two views.
- `SSDUnits`: align + β·uniformity + γ·DSR + δ·PD, with uniformity's kernel by random features;
  terms of weight 0 are left out.
- `TargetObjective`: A loss of a model's outputs and a target that belongs to the same unit: labels,
  hidden pixels.
- `total_loss`: The weighted sum of an objective's terms.
- `TwoViews`: Two augmentations of one batch, `[N, ...]` each, row by row the same examples.
- `uniformity`: log mean exp(−t‖ĥᵢ − ĥⱼ‖²) over distinct pairs of `[N, F]`; about −2t is best.
- `uniformity_loss`: log mean exp(−t‖ẑᵢ − ẑⱼ‖²) over distinct pairs of `[N, D]`, N at least 2.
- `unit_form`: The objective as one loss an example.
- `UnitObjective`: An objective as one loss a unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.objectives.build import build_objective as build_objective
    from secure_fl.objectives.contrastive import NTXent as NTXent
    from secure_fl.objectives.contrastive import SpectralContrastive as SpectralContrastive
    from secure_fl.objectives.coupling import Coupling as Coupling
    from secure_fl.objectives.losses import align_loss as align_loss
    from secure_fl.objectives.losses import align_uniformity_loss as align_uniformity_loss
    from secure_fl.objectives.losses import distillation_loss as distillation_loss
    from secure_fl.objectives.losses import dsr_loss as dsr_loss
    from secure_fl.objectives.losses import nt_xent_dsr_loss as nt_xent_dsr_loss
    from secure_fl.objectives.losses import nt_xent_loss as nt_xent_loss
    from secure_fl.objectives.losses import spectral_attraction as spectral_attraction
    from secure_fl.objectives.losses import spectral_moment as spectral_moment
    from secure_fl.objectives.losses import uniformity_loss as uniformity_loss
    from secure_fl.objectives.masked import MaskedReconstruction as MaskedReconstruction
    from secure_fl.objectives.metrics import alignment as alignment
    from secure_fl.objectives.metrics import effective_rank as effective_rank
    from secure_fl.objectives.metrics import uniformity as uniformity
    from secure_fl.objectives.objective import Objective as Objective
    from secure_fl.objectives.objective import TwoViews as TwoViews
    from secure_fl.objectives.objective import total_loss as total_loss
    from secure_fl.objectives.random_features import RandomFeatures as RandomFeatures
    from secure_fl.objectives.separation import Separation as Separation
    from secure_fl.objectives.separation import SeparationPlan as SeparationPlan
    from secure_fl.objectives.ssd import SSD as SSD
    from secure_fl.objectives.unit_objectives import CrossEntropy as CrossEntropy
    from secure_fl.objectives.unit_objectives import SpectralUnits as SpectralUnits
    from secure_fl.objectives.unit_objectives import SSDUnits as SSDUnits
    from secure_fl.objectives.unit_objectives import TargetObjective as TargetObjective
    from secure_fl.objectives.unit_objectives import UnitObjective as UnitObjective
    from secure_fl.objectives.unit_objectives import unit_form as unit_form

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "build": ["build_objective"],
        "contrastive": ["NTXent", "SpectralContrastive"],
        "coupling": ["Coupling"],
        "losses": [
            "align_loss",
            "align_uniformity_loss",
            "distillation_loss",
            "dsr_loss",
            "nt_xent_dsr_loss",
            "nt_xent_loss",
            "spectral_attraction",
            "spectral_moment",
            "uniformity_loss",
        ],
        "masked": ["MaskedReconstruction"],
        "metrics": ["alignment", "effective_rank", "uniformity"],
        "objective": ["Objective", "TwoViews", "total_loss"],
        "random_features": ["RandomFeatures"],
        "separation": ["Separation", "SeparationPlan"],
        "ssd": ["SSD"],
        "unit_objectives": [
            "CrossEntropy",
            "SSDUnits",
            "SpectralUnits",
            "TargetObjective",
            "UnitObjective",
            "unit_form",
        ],
    },
)
