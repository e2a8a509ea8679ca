"""SSD: alignment, uniformity, dimension-scaled regulariser, projector distillation (2508.01251)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from secure_fl.config import ObjectiveConfig
from secure_fl.objectives.adaptive import gamma_of
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.losses import (
    align_loss,
    align_uniformity_loss,
    distillation_loss,
    dsr_loss,
    nt_xent_dsr_loss,
    nt_xent_loss,
)
from secure_fl.objectives.objective import Objective, TwoViewModel, TwoViews
from secure_fl.objectives.separation import Separation
from secure_fl_kernels.subspace import Subspace


@dataclass(frozen=True)
class SSD(Objective):
    """align + β·uniformity + γ·DSR + δ·PD, each but align the mean over the two views.

    Without a separation, or with γ = δ = 0, it is align + uniformity (FedAlignUniform). Under the
    name `ssd_nt_xent`, NT-Xent stands in place of align + β·uniformity.
    """

    config: ObjectiveConfig
    separation: Separation | None

    @cached_property
    def weights(self) -> Mapping[str, float]:
        contrastive = self.config.name == "ssd_nt_xent"
        chosen = {"nt_xent": 1.0} if contrastive else {"align": 1.0, "uniformity": self.config.beta}
        if self.separation is not None:
            chosen |= {"dsr": gamma_of(self.config), "distillation": self.config.delta}
        return {name: weight for name, weight in chosen.items() if weight != 0}

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        """The code form's Frobenius norm runs over the batch; squared forms are per example."""
        known = {
            "nt_xent": Coupling.BATCH,
            "align": Coupling.PER_EXAMPLE,
            "uniformity": Coupling.BATCH,
            "dsr": Coupling.BATCH if self.config.form == "code" else Coupling.PER_EXAMPLE,
            "distillation": Coupling.PER_EXAMPLE,
        }
        return {name: known[name] for name in self.weights}

    @cached_property
    def _own(self) -> Subspace | None:
        """What the fused losses take of the separation, checked once."""
        if self.separation is None or "dsr" not in self.weights:
            return None
        return self.separation.subspace(self.config.form)

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        (h1, z1), (h2, z2) = model(batch.first), model(batch.second)
        terms = self._contrast(z1, z2)
        if "distillation" in self.weights:
            terms["distillation"] = (self._distil(h1, z1) + self._distil(h2, z2)) / 2
        return terms

    def _contrast(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The terms of the projector's output alone: as many of them as possible in one pass."""
        config, own = self.config, self._own
        if "nt_xent" in self.weights:
            if own is None:
                return {"nt_xent": nt_xent_loss(z1, z2, config.temperature)}
            contrast, dsr = nt_xent_dsr_loss(z1, z2, config.temperature, own)
            return {"nt_xent": contrast, "dsr": dsr}
        if "uniformity" in self.weights:
            return align_uniformity_loss(z1, z2, config.t, own)
        terms = {"align": align_loss(z1, z2)}
        if own is not None and self.separation is not None:
            first, second = (dsr_loss(z, self.separation, config.form) for z in (z1, z2))
            terms["dsr"] = (first + second) / 2
        return terms

    def _distil(self, h: Tensor, z: Tensor) -> Tensor:
        return distillation_loss(h, z, self.config.distillation_temperature, self.config.direction)
