"""The bench of losses over skews: its table. Accuracies are in the CSV."""

from __future__ import annotations

from pathlib import Path

from bench.federated_objectives_page import (
    ALPHAS,
    CLIENTS,
    CSV,
    DATA,
    OBJECTIVES,
    SSD,
    cells,
    table,
)


def test_every_loss_meets_every_skew_on_every_split() -> None:
    every = list(cells(3))
    trained = len(OBJECTIVES) * len(ALPHAS) * len(CLIENTS)
    assert len(set(every)) == len(every) == 3 * len(DATA) * (trained + 1)


def test_ssd_is_compared_on_the_same_split(tmp_path: Path) -> None:
    """Of a seed that only one of the two has, nothing is said."""
    lines = ["data,objective,alpha,clients,seed,probe,knn,p5,k5"]
    for objective, seed, p5 in ((SSD, 0, 0.5), (SSD, 1, 0.6), ("masked", 1, 0.55)):
        lines.append(f"digits,{objective},0.1,16,{seed},0.9,0.8,{p5},0.4")
    (tmp_path / CSV).write_text("\n".join(lines))
    masked, over_all = [line for line in table(tmp_path).split("\n") if "| masked |" in line]
    assert masked.split(" | ")[-2:] == over_all.split(" | ")[-2:] == ["+5.0", "1 |"]
