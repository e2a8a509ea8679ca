"""What another plan has otherwise than the one before it, for whoever is asked to take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secure_fl.crypto.roster import Roster
from secure_fl.federation.plan import Plan
from secure_fl.federation.succession import changed

_FACTS = ("shape", "classes", "first_day", "last_day", "publish_models", "code", "server")


def differences(old: tuple[Roster, Plan], new: tuple[Roster, Plan]) -> tuple[str, ...]:
    """A sentence for each setting, fact and party that is not as before."""
    (old_roster, before), (new_roster, now) = old, new
    return (
        *_settings(before.configuration, now.configuration),
        *_settings(*({name: getattr(plan, name) for name in _FACTS} for plan in (before, now))),
        *_parties(old_roster, new_roster),
        *_follows(before, now),
    )


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, before, now in changed(old, new):
        yield f"{name}: {_word(before)} before, {_word(now)} now"


def _parties(old: Roster, new: Roster) -> Iterator[str]:
    before = {member.name: member for member in old.members}
    now = {member.name: member for member in new.members}
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"{name}: not on the roster any more"
        elif name not in before:
            yield f"{name}: new on the roster"
        elif before[name] != now[name]:
            yield f"{name}: another key on the roster"


def _follows(before: Plan, now: Plan) -> Iterator[str]:
    """Whether models, rounds and ledgers go on under another plan."""
    if now.follows is None and now.digest != before.digest:
        yield "begins anew: no ledger goes on, and the budget is another one"
    elif now.follows is not None:
        known = now.follows.plan == before.digest
        plan = "the plan before" if known else f"plan {now.follows.plan.hex()[:16]}"
        at = now.follows.place
        yield f"goes on from {plan}: {at.round} rounds of step {at.step + 1} are done"


def _word(value: object) -> str:
    return "unset" if value is None else str(value)
