"""What came out: a table of all clients, beside the same computation in one process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stage import Stage


def embedded(stage: Stage, folder: Path, files: Mapping[str, Path]) -> dict[str, tuple[int, float]]:
    """Pool and accuracy of each client in a run of one process that has all examples."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, path in files.items():
        with np.load(path) as own:
            for key in ("x", "y", "split"):
                parts.setdefault(key, []).append(own[key])
            parts.setdefault("client", []).append(
                np.array([f"{name}.{each}" for each in own["client"]])
            )
    whole = {key: np.concatenate(each) for key, each in parts.items()}
    np.savez(folder / "watch.npz", **whole)
    more = ("--set", "evaluate.enabled=true", "--out", "alone")
    stage.do("experimenter", "run", "config.toml", *more)
    pools = json.loads((folder / "alone" / "summary.json").read_text())["pools"]
    names = sorted(set(whole["client"].tolist()))
    return {
        name: (pools["choices"][str(at)], pools["accuracies"][str(at)])
        for at, name in enumerate(names)
    }


def table(folder: Path, sites: Iterable[str], alone: Mapping[str, tuple[int, float]]) -> str:
    """A line a client and clinic, and the means."""
    line = "{:<28} {:>5} {:>9}   {:>5} {:>9}".format
    lines = [
        line("", "pools", "of three", "pools", "in one"),
        line("client", "pool", "accuracy", "pool", "accuracy"),
    ]
    found: dict[str, tuple[int, float]] = {}
    for site in sites:
        clients: dict[str, Any] = json.loads((folder / site / "result.json").read_text())["clients"]
        own = {name: (each["pool"], each["test_accuracy"]) for name, each in clients.items()}
        for name, (pool, accuracy) in sorted(own.items()):
            lines.append(
                line(name, pool, f"{accuracy:.3f}", alone[name][0], f"{alone[name][1]:.3f}")
            )
        means = [f"{np.mean([each[name][1] for name in own]):.3f}" for each in (own, alone)]
        lines.append(line(f"{site}, mean", "", means[0], "", means[1]))
        found |= own
    means = [
        f"{np.mean([accuracy for _, accuracy in each.values()]):.3f}" for each in (found, alone)
    ]
    lines.append(line("all clients, mean", "", means[0], "", means[1]))
    lines += [
        f"{who}: {_arms(each)}" for who, each in (("three sites", found), ("one process", alone))
    ]
    return "\n".join(lines)


def _arms(found: Mapping[str, tuple[int, float]]) -> str:
    """How well the pools are the two arms, which nobody told them."""
    left = sum((pool == 0) == name.endswith("left") for name, (pool, _) in found.items())
    return f"{max(left, len(found) - left)} of {len(found)} clients are in the pool of their arm"


def ledgers(folder: Path, sites: Iterable[str]) -> str:
    """What each client released, by its own ledger."""
    counts, spent = set[int](), list[float]()
    for site in sites:
        for path in sorted((folder / site / "parties").glob("*/*/ledger.json")):
            ledger = json.loads(path.read_text())
            counts.add(len(ledger["releases"]))
            spent += [each["epsilon"] for each in ledger["stated"]]
    made = " or ".join(map(str, sorted(counts)))
    return (
        f"{made} releases a client, none of them twice; ε {max(spent):.2f} of one window at most "
        "(δ = 1e-05, zero-out)"
    )
