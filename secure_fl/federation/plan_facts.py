"""What a transcript says of a plan. No torch."""

from __future__ import annotations

from typing import Any

from secure_fl import __version__
from secure_fl.crypto.roster import Roster
from secure_fl.federation.plan import Plan


def plan_facts(plan: Plan, roster: Roster, configuration: str | None = None) -> dict[str, Any]:
    """What everybody agreed to; `configuration` is a digest of the file that it was read from."""
    rules = [plan.rules(cohort) for cohort in plan.config.cohorts(len(plan.clients))]
    return {
        "digest": plan.digest.hex(),
        "federation": roster.federation,
        "protection": plan.protection,
        "key_holder": plan.key_holder,
        "clients": sorted(plan.clients),
        "fewest": min((each.survivors for each in rules if each), default=0),
        "colluders": plan.config.privacy.colluders,
        "roster": roster.digest.hex(),
        "revision": roster.revision,
        "versions": {"secure-fl": __version__},
        "configuration": configuration,
    }
