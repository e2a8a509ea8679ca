"""Whether weights of SSD's separation that follow how far clients differ make a better encoder than
fixed ones, over Dirichlet skews of labels.

    python -m bench.adaptive_separation [run] [--seeds 3]    measure what is missing (minutes)
    python -m bench.adaptive_separation page                 write the table into
                                                             docs/adaptive-separation.md

Digits, twelve clients, a small fully connected encoder, eight rounds of one local epoch, sums in
the open, no privacy. A row a skew, rule and seed goes to `results/adaptive_separation.csv`: probe
and kNN of the encoder, and in the mean over rounds the difference that was measured and the factor
on γ and δ. `none` leaves both terms out (align + uniformity).
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch

from bench.harness import ROOT, append_row, command_line, provenance, read_rows
from bench.pages import fill, sheet, spread
from secure_fl import Federation, FederationConfig
from secure_fl.objectives.adaptive import separation_factor

CSV = "adaptive_separation.csv"
PAGE = ROOT / "docs" / "adaptive-separation.md"
ALPHAS = (0.1, 1.0, 10.0)
RULES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "adaptive": {"adaptive": True},
    "none": {"gamma": 0.0, "delta": 0.0},
}
ROUNDS, CLIENTS = 8, 12
MEASURES = ("linear_probe", "knn", "difference", "factor")


def measured(alpha: float, rule: str, seed: int) -> dict[str, float]:
    """The encoder's accuracies, and what its rounds say of the clients."""
    config = FederationConfig(
        seed=seed,
        partition={"kind": "dirichlet", "concentration": alpha, "clients": CLIENTS},
        model={"encoder": "mlp", "features": 64},
        objective=RULES[rule],
        pretrain={"rounds": ROUNDS, "local_epochs": 1, "batch_size": 32, "lr": 0.05},
        pools={"enabled": False},
        security={"protection": "plain"},
        evaluate={"knn": 20, "probe_epochs": 100},
    )
    metrics = [record.metrics for record in Federation(config).run(progress=False).records]
    encoder = next(each.pretrained for each in reversed(metrics) if each.pretrained)
    found = [each.differences[0] for each in metrics if each.differences]
    known = [each for each in found if each is not None]
    factors = [separation_factor(config.objective, each) for each in (None, *known[:-1])]
    values = {**encoder, "difference": fmean(known), "factor": fmean(factors)}
    return {name: round(values[name], 4) for name in MEASURES}


def runs(seeds: int) -> Iterator[tuple[float, str, int]]:
    """All, one seed after the other."""
    for rules in (("fixed", "adaptive"), ("none",)):
        for seed in range(seeds):
            yield from ((alpha, rule, seed) for rule in rules for alpha in ALPHAS)


def table() -> str:
    """Means and deviations over seeds; `above fixed` is seed by seed."""
    rows, lines = read_rows(CSV), list[list[str]]()
    by_run = {(float(row["alpha"]), row["rule"], row["seed"]): row for row in rows}
    for alpha in ALPHAS:
        for rule in RULES:
            own = [row for key, row in by_run.items() if key[:2] == (alpha, rule)]
            if own:
                figures = [spread([float(row[name]) for row in own]) for name in MEASURES]
                lines.append([f"{alpha:g}", rule, *figures, _above(by_run, own), str(len(own))])
    head = ["Dirichlet α", "weights", "probe", "kNN", "difference", "factor"]
    head += ["probe above fixed", "seeds"]
    return sheet(head, lines)


def _above(by_run: dict[tuple[float, str, str], dict[str, str]], own: list[dict[str, str]]) -> str:
    """By how much these runs' probes are above those with fixed weights, of the same seeds."""
    pairs = ((row, by_run.get((float(row["alpha"]), "fixed", row["seed"]))) for row in own)
    steps = [
        float(row["linear_probe"]) - float(fixed["linear_probe"])
        for row, fixed in pairs
        if fixed is not None and fixed is not row
    ]
    return spread(steps) if steps else ""


def main() -> None:
    """Command line."""
    arguments = command_line(__doc__, "run", "page").parse_args()
    torch.set_num_threads(1)
    done = {(float(row["alpha"]), row["rule"], int(row["seed"])) for row in read_rows(CSV)}
    where = provenance()
    for alpha, rule, seed in runs(arguments.seeds if arguments.what == "run" else 0):
        if (alpha, rule, seed) not in done:
            row = {"alpha": alpha, "rule": rule, "seed": seed, **measured(alpha, rule, seed)}
            append_row(CSV, row, where)
            print(*row.values(), sep=" | ", flush=True)
    print(fill(PAGE, lambda _: table()))


if __name__ == "__main__":
    main()
