"""Whether pre-training on tables helps, by views: kNN of the encoder before and after, on wine, breast cancer and digits as vectors.

    python bench/table_views.py [ssd|nt_xent]

Four clients with shuffled shares, 15 rounds, three seeds; a line a set and augmentation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import mean
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.data.augmentations import KeyedAugmentation, SeriesViews, TableViews

SETS: dict[str, Callable[[], Any]] = {"wine": load_wine, "cancer": load_breast_cancer, "digits": load_digits}
VIEWS: dict[str, KeyedAugmentation] = {
    **{f"mask {share}": SeriesViews(mask=share) for share in (0.2, 0.4, 0.6)},
    **{f"corrupt {share}": TableViews(share) for share in (0.0, 0.15, 0.3, 0.45, 0.6)},
}
SEEDS, MOST = 3, 1000


def measured(name: str, objective: str, views: KeyedAugmentation) -> list[tuple[float, float, float, float]]:
    """(kNN before, kNN after, probe before, probe after), a seed each."""
    bunch, found = SETS[name](), []
    x, y = torch.tensor(bunch.data[:MOST]).float(), torch.tensor(bunch.target[:MOST])
    for seed in range(SEEDS):
        config = FederationConfig(
            seed=seed,
            partition={"kind": "iid", "clients": 4},
            objective={"name": objective},
            pretrain={"rounds": 15, "local_epochs": 2, "batch_size": 32, "lr": 0.05},
            pools={"enabled": False},
            security={"protection": "plain"},
            evaluate={"knn": 20, "probe_epochs": 50},
        )
        result = Federation(config, data=Dataset.from_arrays(x, y), augment=views).run()
        metrics = next(record.metrics for record in reversed(result.records) if "pretrained" in record.metrics)
        found.append(tuple(metrics[when][what] for what in ("knn", "linear_probe") for when in ("initial", "pretrained")))
    return found


if __name__ == "__main__":
    objective = sys.argv[1] if len(sys.argv) > 1 else "ssd"
    for name in SETS:
        for title, views in VIEWS.items():
            figures = [mean(column) for column in zip(*measured(name, objective, views), strict=True)]
            print(
                f"{objective} {name:7} {title:13} kNN {figures[0]:.3f} -> {figures[1]:.3f}   probe {figures[2]:.3f} -> {figures[3]:.3f}", flush=True
            )
