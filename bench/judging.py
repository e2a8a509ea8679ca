"""How the benches judge an encoder that nothing is trained on any more."""

from __future__ import annotations

from torch import Tensor

from secure_fl.training.probes import few_labels, linear_probe, weighted_knn


def judged(
    bank: Tensor, y: Tensor, test: Tensor, test_y: Tensor, *, classes: int, seed: int, epochs: int
) -> dict[str, float]:
    """Accuracies on test examples: of a linear probe on all labels and 20 neighbours, then of both
    kinds on five labels a class (`few_labels`).

    Args:
        bank, test: features that are read with labels and that are asked, `[N, F]` and `[M, F]`.
        y, test_y: labels, int64 `[N]` and `[M]`.
        classes: how many there are.
        seed, epochs: of the probe.
    """
    mean, scale = bank.mean(0), bank.std(0) + 1e-6
    standard = ((bank - mean) / scale, y, (test - mean) / scale, test_y)
    p5, k5 = few_labels(bank, y, test, test_y, classes=classes, seed=seed)
    values = {
        "probe": linear_probe(*standard, classes=classes, epochs=epochs, seed=seed),
        "knn": weighted_knn(bank - mean, y, test - mean, test_y, k=20),
        "p5": p5,
        "k5": k5,
    }
    return {name: round(value, 4) for name, value in values.items()}
