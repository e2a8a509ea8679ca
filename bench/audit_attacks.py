"""How far attacks get on digits, without and with a run's defence.

    python -m bench.audit_attacks [--depth minutes] [--only membership] [--seed 0]

Membership, choice of pool, properties, and images out of gradients, on three runs of twelve clients
with scikit-learn's digits: without differential privacy, and at example level with ε of 8 and of 1.
A row for each figure of `secure_fl.audit.attacks`: value, its interval of 95 %, what chance gives,
what the claim allows; `coins` says how many slots a membership attack had, half of whose candidates
were members.
Rows go to `results/audit_attacks.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bench.harness import append_row, provenance
from secure_fl.audit.attacks.first_layer import FIRST_LAYER
from secure_fl.audit.attacks.inversion import INVERSION
from secure_fl.audit.attacks.membership import MEMBERSHIP
from secure_fl.audit.attacks.pool_guess import POOL_GUESS
from secure_fl.audit.attacks.property_probe import PROPERTY_PROBE
from secure_fl.audit.check import Check, Depth
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig

CSV = "audit_attacks.csv"
RUNS: Mapping[str, dict[str, Any]] = {
    "open": {},
    "example level, ε 8": {"privacy": {"unit": "example", "epsilon": 8.0}},
    "example level, ε 1": {
        "privacy": {"unit": "example", "epsilon": 1.0, "sketch_epsilon": 0.25},
    },
}
CHECKS: tuple[Check, ...] = (PROPERTY_PROBE, POOL_GUESS, MEMBERSHIP, INVERSION, FIRST_LAYER)


def rows(run: str, outcome: Outcome) -> list[dict[str, object]]:
    """One for each figure."""
    return [
        {
            "run": run,
            "check": outcome.check,
            "verdict": outcome.verdict,
            "figure": each.name,
            "setting": each.setting,
            "value": round(each.value, 4),
            "low": "" if each.low is None else round(each.low, 4),
            "high": "" if each.high is None else round(each.high, 4),
            "chance": "" if each.chance is None else round(each.chance, 4),
            "limit": "" if each.limit is None else round(each.limit, 4),
            "seconds": round(outcome.seconds, 1),
        }
        for each in outcome.figures
    ]


def main() -> None:
    """Attack every run, append rows, print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=Depth, default=Depth.MINUTES)
    parser.add_argument("--only", choices=[each.name for each in CHECKS])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    where = provenance(["scikit-learn", "scipy"])
    for run, tables in RUNS.items():
        subject = Subject(FederationConfig.model_validate(tables))
        for check in CHECKS:
            if arguments.only not in (None, check.name) or check.refused(subject):
                continue
            outcome = check.run(subject, arguments.depth, arguments.seed, lambda _: None)
            print(f"{run}: {check.name}: {outcome.verdict}: {outcome.said}", flush=True)
            for row in rows(run, outcome):
                append_row(CSV, {"depth": str(arguments.depth), **row}, where)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
