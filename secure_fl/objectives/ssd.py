"""SSD: alignment, uniformity, dimension-scaled regulariser and projector distillation (arXiv 2508.01251)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from secure_fl.config import ObjectiveConfig
from secure_fl.objectives.coupling import Coupling, widest
from secure_fl.objectives.losses import align_loss, distillation_loss, dsr_loss, uniformity_loss
from secure_fl.objectives.objective import TwoViewModel, TwoViews
from secure_fl.objectives.separation import Separation

GAMMA = {"code": 1.0, "normalized": 0.055, "paper": 0.01}
"""Weight of the regulariser that gives each form about the same tangential gradient; 1 is the paper's, with the code form."""


@dataclass(frozen=True)
class SSD:
    """align + β·uniformity + γ·DSR + δ·PD, each but align the mean over the two views.

    Without a separation, or with γ = δ = 0, it is align + uniformity (FedAlignUniform).
    """

    config: ObjectiveConfig
    separation: Separation | None

    @property
    def weights(self) -> Mapping[str, float]:
        gamma = GAMMA[self.config.form] if self.config.gamma is None else self.config.gamma
        chosen = {"align": 1.0, "uniformity": self.config.beta}
        if self.separation is not None:
            chosen |= {"dsr": gamma, "distillation": self.config.delta}
        return {name: weight for name, weight in chosen.items() if weight != 0}

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        """The code form's Frobenius norm runs over the batch; the squared forms are means of one example's terms."""
        known = {
            "align": Coupling.PER_EXAMPLE,
            "uniformity": Coupling.BATCH,
            "dsr": Coupling.BATCH if self.config.form == "code" else Coupling.PER_EXAMPLE,
            "distillation": Coupling.PER_EXAMPLE,
        }
        return {name: known[name] for name in self.weights}

    @property
    def coupling(self) -> Coupling:
        return widest(self.couplings.values())

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        (h1, z1), (h2, z2) = model(batch.first), model(batch.second)
        config, separation = self.config, self.separation
        losses: dict[str, Callable[[], Tensor]] = {
            "align": lambda: align_loss(z1, z2),
            "uniformity": lambda: (uniformity_loss(z1, config.t) + uniformity_loss(z2, config.t)) / 2,
        }
        if separation is not None:
            losses["dsr"] = lambda: (dsr_loss(z1, separation, config.form) + dsr_loss(z2, separation, config.form)) / 2
            losses["distillation"] = lambda: (self._distil(h1, z1) + self._distil(h2, z2)) / 2
        return {name: losses[name]() for name in self.weights}

    def _distil(self, h: Tensor, z: Tensor) -> Tensor:
        return distillation_loss(h, z, self.config.distillation_temperature, self.config.direction)
