"""The contrastive objectives: NT-Xent and spectral contrastive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.losses import nt_xent_loss, spectral_attraction, spectral_moment
from secure_fl.objectives.objective import Objective, TwoViewModel, TwoViews


@dataclass(frozen=True)
class NTXent(Objective):
    """SimCLR's loss; every example's term depends on the whole batch."""

    temperature: float = 0.5

    @property
    def weights(self) -> Mapping[str, float]:
        return {"nt_xent": 1.0}

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        return {"nt_xent": Coupling.BATCH}

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        (_, z1), (_, z2) = model(batch.first), model(batch.second)
        return {"nt_xent": nt_xent_loss(z1, z2, self.temperature)}


@dataclass(frozen=True)
class SpectralContrastive(Objective):
    """−2 E ẑ·ẑ⁺ + ‖E ẑẑᵀ‖²_F; examples meet in a `[D, D]` second moment only."""

    @property
    def weights(self) -> Mapping[str, float]:
        return {"attraction": 1.0, "moment": 1.0}

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        return {"attraction": Coupling.PER_EXAMPLE, "moment": Coupling.STATISTIC}

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        (_, z1), (_, z2) = model(batch.first), model(batch.second)
        return {"attraction": spectral_attraction(z1, z2), "moment": spectral_moment(z1, z2)}
