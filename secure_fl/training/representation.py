"""Every metric of an encoder, each on a declared set: fitted on the pooled training examples,
measured on the pooled test ones.

Clients of one group draw their tests from one held-out split, so an example can occur more than
once in the pooled test set.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from secure_fl.config import EvaluateConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import Augmentation, batch_views
from secure_fl.objectives.metrics import alignment, effective_rank, uniformity
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.probes import fine_tune, linear_probe, weighted_knn
from secure_fl.training.tasks import embed

MEASURED_ON = {
    "alignment": "two views of all clients' test examples, features h",
    "uniformity": "all clients' test examples, features h, t = 2",
    "effective_rank": "all clients' test examples, features h",
    "knn": "bank: all clients' labelled training examples; measured on all clients' test examples",
    "linear_probe": "fitted on all clients' labelled training examples; measured on all clients' "
    "test examples",
    "fine_tune": "a stratified share of all clients' labelled training examples; measured on all "
    "clients' test examples",
}


def measure_representation(
    encoder: nn.Module,
    train: Dataset,
    test: Dataset,
    config: EvaluateConfig,
    *,
    augment: Augmentation,
    compute: Compute,
    seed: int,
) -> dict[str, float]:
    """All metrics of [evaluate]. Needs every client's data in one place, so it belongs
    to simulations.

    Returns:
        Values by name; the label metrics are left out when there are no labels, all of them below
        two test examples.
    """
    if len(test) < 2:
        return {}
    h = embed(encoder, test.x, compute)
    first, second = batch_views(augment, test.x, derive_seed(seed, "alignment"))
    agreed = alignment(embed(encoder, first, compute), embed(encoder, second, compute))
    metrics = {"alignment": agreed, "uniformity": uniformity(h)}
    metrics["effective_rank"] = effective_rank(h)
    bank, judged = train.with_labels(), test.with_labels()
    if len(bank) == 0 or len(judged) == 0:
        return metrics
    bank_h, judged_h = embed(encoder, bank.x, compute), embed(encoder, judged.x, compute)
    features = (bank_h, bank.y, judged_h, judged.y)
    metrics["knn"] = weighted_knn(*features, k=config.knn, temperature=config.knn_temperature)
    if config.probe_epochs:
        metrics["linear_probe"] = linear_probe(
            *features, classes=train.classes, epochs=config.probe_epochs, seed=seed
        )
    tuned = partial(fine_tune, encoder, bank, judged, epochs=config.fine_tune_epochs, seed=seed)
    return metrics | {
        f"fine_tune_{share:g}": tuned(share=share, augment=augment, compute=compute)
        for share in config.fine_tune
    }
