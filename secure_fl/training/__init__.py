"""What happens on one client: local training, scoring, and probes of a representation.

Public names, each imported when it is used:

- `Compute`: A device and a precision.
- `embed`: Features `[N, F]` of un-augmented examples, float32 on the processor, in eval mode.
- `epochs`: Index batches over `count` examples, `spec.epochs` times, each epoch in a new order.
- `fine_tune`: Test accuracy after training the whole encoder and a linear head on `share` of the
  labels, stratified.
- `FitReport`: Mean of each term over the steps taken.
- `linear_probe`: Test accuracy of a linear classifier on frozen features after the last epoch;
  Adam, 3e-3, batch 512.
- `LocalSpec`: One call's share of training.
- `measure_representation`: All metrics of [evaluate], of one encoder.
- `Score`: Mean loss, and accuracy where there are labels; `entropy` is that of the predictions,
  in nats.
- `SelfSupervised`: A self-supervised objective on two views.
- `Supervised`: Cross-entropy on the labelled examples.
- `Task`: Fit a model on a client's examples, or score it there.
- `weighted_knn`: Accuracy of kNN on cosine similarity, a neighbour's vote weighing
  exp(cosine / temperature).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.training.device import Compute as Compute
    from secure_fl.training.fit import FitReport as FitReport
    from secure_fl.training.fit import LocalSpec as LocalSpec
    from secure_fl.training.fit import epochs as epochs
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
        "probes": ["fine_tune", "linear_probe", "weighted_knn"],
        "representation": ["measure_representation"],
        "tasks": ["Score", "SelfSupervised", "Supervised", "Task", "embed"],
    },
)
