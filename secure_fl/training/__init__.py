"""What happens on one client: local training, scoring, and probes of a representation.

Public names, each imported when it is used; their docstrings say the rest:

- what is trained for: `Task`, `Supervised`, `SelfSupervised`, and how well, `Score`;
- one call's share of it: `LocalSpec`, `epochs` (index batches), `FitReport`, `Compute` (device and
  precision);
- how good an encoder is: `measure_representation`, `weighted_knn`, `linear_probe`, `few_labels`,
  `fine_tune`, `embed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.training.device import Compute as Compute
    from secure_fl.training.fit import FitReport as FitReport
    from secure_fl.training.fit import LocalSpec as LocalSpec
    from secure_fl.training.fit import epochs as epochs
    from secure_fl.training.probes import few_labels as few_labels
    from secure_fl.training.probes import fine_tune as fine_tune
    from secure_fl.training.probes import linear_probe as linear_probe
    from secure_fl.training.probes import weighted_knn as weighted_knn
    from secure_fl.training.representation import measure_representation as measure_representation
    from secure_fl.training.tasks import Score as Score
    from secure_fl.training.tasks import SelfSupervised as SelfSupervised
    from secure_fl.training.tasks import Supervised as Supervised
    from secure_fl.training.tasks import Task as Task
    from secure_fl.training.tasks import embed as embed

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "device": ["Compute"],
        "fit": ["FitReport", "LocalSpec", "epochs"],
        "probes": ["few_labels", "fine_tune", "linear_probe", "weighted_knn"],
        "representation": ["measure_representation"],
        "tasks": ["Score", "SelfSupervised", "Supervised", "Task", "embed"],
    },
)
