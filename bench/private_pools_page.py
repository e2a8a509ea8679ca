"""Tables of pools on view moments, from the CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.pages import sheet, whereabouts
from bench.private_encoders_page import Record, interval

CSV = "private_pools.csv"
FEDERATION, HEADS = "federation", "heads"


def runs(rows: Sequence[Record]) -> str:
    """What the configuration's runs came to, over seeds."""
    found = [row for row in rows if row["what"] == FEDERATION]
    head = ["seeds", "accuracy", "worst client", "ARI", "ε spent", "processor seconds a run"]
    if not found:
        return sheet(head, [])
    seeds = ", ".join(row["seed"] for row in found)
    scores = [interval([float(row[name]) for row in found]) for name in ("accuracy", "worst")]
    least, spent = (pick(float(row[name]) for row in found) for pick, name in _ENDS)
    seconds = max(float(row["cpu_seconds"]) for row in found)
    cells = [seeds, *scores, f"{least:.2f}", f"{spent:.2f}", f"at most {seconds:.0f}"]
    return sheet(head, [cells])


def split(rows: Sequence[Record]) -> str:
    """A row a part of ε, a column a learning rate."""
    found = [row for row in rows if row["what"] == HEADS]
    rates = sorted({float(row["lr"]) for row in found})
    head = ["ε of the moments", *(f"learning rate {lr:g}" for lr in rates)]
    lines = list[list[str]]()
    for part in sorted({float(row["moment_epsilon"]) for row in found}):
        scores = {
            float(r["lr"]): r["accuracy"] for r in found if float(r["moment_epsilon"]) == part
        }
        lines.append([f"{part:g}", *(f"{float(scores[lr]):.3f}" for lr in rates)])
    return sheet(head, lines)


def where(rows: Sequence[Record]) -> str:
    """Where and when it was measured."""
    return "\n".join(whereabouts(rows))


_ENDS = ((min, "ari"), (max, "epsilon"))
TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "pools:runs": runs,
    "pools:split": split,
    "pools:where": where,
}
