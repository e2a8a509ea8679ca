"""Whether pre-training on tables helps, by views: kNN and probe of the encoder before and after, on
wine, breast cancer and digits as vectors.

    python -m bench.table_views [ssd|nt_xent]

Four clients with shuffled shares, each standardised by its own training examples; 15 rounds; three
seeds. A row a set, augmentation and seed goes to `results/table_views.csv`; settings with rows
there are not measured again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from bench.harness import append_row, provenance, read_rows
from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.data.augmentations import KeyedAugmentation, SeriesViews, TableViews

CSV = "table_views.csv"
SETS: dict[str, Callable[[], Any]] = {
    "wine": load_wine,
    "cancer": load_breast_cancer,
    "digits": load_digits,
}
VIEWS: dict[str, KeyedAugmentation] = {
    "mask 0.2": SeriesViews(mask=0.2),
    **{f"corrupt {share}": TableViews(share) for share in (0.0, 0.15, 0.3, 0.6)},
}
SEEDS, MOST = 3, 1000


def measured(name: str, objective: str, views: KeyedAugmentation, seed: int) -> dict[str, float]:
    """kNN and linear probe before and after pre-training."""
    bunch = SETS[name]()
    x, y = torch.tensor(bunch.data[:MOST]).float(), torch.tensor(bunch.target[:MOST])
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
    metrics = next(
        record.metrics for record in reversed(result.records) if record.metrics.pretrained
    )
    return {
        f"{what} {when}": round(getattr(metrics, when)[what], 4)
        for what in ("knn", "linear_probe")
        for when in ("initial", "pretrained")
    }


if __name__ == "__main__":
    objective, where = sys.argv[1] if len(sys.argv) > 1 else "ssd", provenance()
    done = {
        tuple(row[key] for key in ("objective", "set", "views", "seed")) for row in read_rows(CSV)
    }
    for seed in range(SEEDS):
        for name in SETS:
            for title, views in VIEWS.items():
                if (objective, name, title, str(seed)) not in done:
                    figures = measured(name, objective, views, seed)
                    append_row(
                        CSV,
                        {
                            "objective": objective,
                            "set": name,
                            "views": title,
                            "seed": seed,
                            **figures,
                        },
                        where,
                    )
                    print(objective, name, title, seed, figures, flush=True)
