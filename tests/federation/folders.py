"""Small private runs that are stopped and resumed, and what may be done to their folders
in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers import StopAfter, tiny_config

from secure_fl import Callback, Dataset, Federation, FederationConfig
from secure_fl.federation.run_folder.metrics import RoundRecord

ROUNDS, CLIENTS = 4, 2


def private_config(**tables: dict[str, Any]) -> FederationConfig:
    """Two clients that pre-train for four rounds, each release charged."""
    base: dict[str, dict[str, Any]] = {
        "partition": {"kind": "iid", "clients": CLIENTS},
        "pretrain": {"rounds": ROUNDS, "batch_size": 64},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "privacy": {"unit": "example", "noise": 8.0, "epsilon": 100.0},
    }
    return tiny_config(
        **{name: {**base.get(name, {}), **tables.get(name, {})} for name in base | tables}
    )


class KeepLedgers(Callback):
    """The bytes of the ledger as they were after each round."""

    def __init__(self, out: Path) -> None:
        self.path, self.kept = out / "ledger.json", list[bytes]()

    def on_round(self, record: RoundRecord) -> None:
        self.kept.append(self.path.read_bytes())


def stopped(
    out: Path,
    data: Dataset,
    rounds: int,
    *,
    midway: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[bytes]:
    """A run that died after so many rounds, or when all clients had answered in the next one; the
    ledger after each round.
    """
    ledgers = KeepLedgers(out)
    try:
        Federation(
            private_config(),
            data=data,
            callbacks=[ledgers, *callbacks, StopAfter(rounds, midway=midway, at_end=True)],
        ).run(out)
    except KeyboardInterrupt:
        return ledgers.kept
    raise AssertionError("was to be stopped")


def resumed(out: Path, data: Dataset) -> Any:
    return Federation(private_config(), data=data).run(out, resume=True)


def charged_rounds(out: Path) -> set[int]:
    """Rounds that the ledger charges client 0 for."""
    return {
        entry["round"]
        for entry in json.loads((out / "ledger.json").read_text())["releases"]
        if entry["subjects"] == [0]
    }


def recorded_rounds(out: Path) -> int:
    return len((out / "metrics.jsonl").read_text().splitlines())
