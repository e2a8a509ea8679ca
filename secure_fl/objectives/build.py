"""Objectives from a configuration."""

from __future__ import annotations

from secure_fl.config import ObjectiveConfig
from secure_fl.objectives.contrastive import NTXent, SpectralContrastive
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.ssd import SSD

_PROJECTION_SEED = 0
"""Public: all clients of all runs must reconstruct towards one projection."""


def separates(config: ObjectiveConfig) -> bool:
    """Whether clients own dimensions under this objective."""
    return config.name in ("ssd", "ssd_nt_xent")


def build_objective(config: ObjectiveConfig, separation: Separation | None = None) -> Objective:
    """The objective named; SSD without a `separation` has no DSR and no distillation."""
    if config.name == "nt_xent":
        return NTXent(config.temperature)
    if config.name == "spectral_contrastive":
        return SpectralContrastive()
    if config.name == "masked":
        return MaskedReconstruction(_PROJECTION_SEED)
    return SSD(config, separation if separates(config) else None)
