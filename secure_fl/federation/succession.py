"""When a plan may go on from another: the same computation, of more people or of others.

Guarantee: nothing that decides what is computed, or how it is protected, differs; whoever was in
the plan before keeps its number, under which its ledger counts; and the first round is one whose
answers nobody has given before.
Assumes: the earlier plan is the one that was agreed to.
Not covered: what the newcomers' examples are, and whether there are honest people among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Schedule

_OTHERWISE = {
    "configuration", "clients", "roster", "start", "largest", "largest_state",
    "first_day", "last_day", "follows",
}  # fmt: skip
"""Facts of a plan that its successor may have otherwise; of the configuration the number of clients
alone.
"""


def objection(before: Plan, after: Plan) -> str | None:
    """Why `after` does not go on from `before`; None where it does."""
    if after.follows is None or after.follows.plan != before.digest:
        return f"it does not go on from plan {before.digest.hex()[:16]}…"
    facts = [one.name for one in fields(Plan) if one.init and one.name not in _OTHERWISE]
    other = [name for name in facts if getattr(before, name) != getattr(after, name)]
    other += [name for name, _, _ in changed(_shared(before), _shared(after))]
    if other:
        return f"it has other {', '.join(other)} than the plan that it goes on from"
    stay = set(before.clients) & set(after.clients)
    if any(before.clients.index(name) != after.clients.index(name) for name in stay):
        return "it gives clients other numbers than those under which their ledgers count"
    return None


def begins_anew(program: Schedule, place: Place) -> bool:
    """Whether a round is there that newcomers may join in: the first of a step, or one in which
    everybody trains anew. In other rounds answers stand still, and whoever is in one sum and was
    not in the sum before shows by the difference.
    """
    return not program.done(place) and (place.round == 0 or program.form(place).repeatable)


def numbered(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """Clients in the order of their numbers: those that stay keep theirs, newcomers take the places
    of those who have gone, and then the next ones. Raises ValueError: it names the places for which
    there is nobody.
    """
    new = iter(name for name in now if name not in before)
    order = [name if name in now else next(new, "") for name in before]
    if gaps := [name for name, taken in zip(before, order, strict=True) if not taken]:
        raise ValueError(", ".join(gaps))
    return (*order, *new)


def _shared(plan: Plan) -> Mapping[str, Any]:
    """The configuration without the number of clients."""
    tables = dict(plan.configuration)
    tables["partition"] = {**tables.get("partition", {}), "clients": None}
    return tables


def changed(
    old: Mapping[str, Any], new: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ: (its name, value before, value now), None where there is none.

    Args:
        old, new: tables, of tables or values.
        place: what their names begin with.
    """
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from changed(before, now, f"{place}{name}.")
        elif before != now:
            yield f"{place}{name}", before, now
