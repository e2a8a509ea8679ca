"""Losses and their coupling, who owns which dimensions, and metrics of a representation.

Public names, each imported when it is used; their docstrings say the rest:

- losses of `[N, D]`: `align_loss`, `uniformity_loss`, `nt_xent_loss`, `dsr_loss`,
  `distillation_loss`, `spectral_attraction`, `spectral_moment`; two in one pass:
  `align_uniformity_loss`, `nt_xent_dsr_loss`;
- objectives, weighted sums of them: `Objective`, `build_objective`, `SSD`, `NTXent`,
  `SpectralContrastive`, `MaskedReconstruction`, `TwoViews`, `total_loss`;
- how examples meet in them: `Coupling`;
- one loss a unit, for private training: `UnitObjective`, `unit_form`, `SSDUnits`, `SpectralUnits`,
  `RandomFeatures`, and with targets `TargetObjective`, `CrossEntropy`;
- own dimensions: `Separation`, `SeparationPlan`;
- metrics: `alignment`, `uniformity`, `effective_rank`.
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
