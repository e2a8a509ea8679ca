"""Who is called to a round and what its sum is like: everybody computes it, nobody is told.

**Guarantee**: cohort, shape, bounds and thresholds follow from the plan and the place; a server
chooses the number, the attempt and who is left out, and thresholds stay those of the whole cohort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_fl.crypto.envelope import NO_KEY
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import canonical, fields, from_hex, malformed
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import SumForm
from secure_fl.federation.wire import read_place, shown
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.robust import draw_groups

ATTEMPTS = 3
"""Of one round. Each leaves out more clients, and the numbers that must survive stay."""
_CALL = {"number": int, "place": list, "attempt": int, "left_out": list, "key": str}


@dataclass(frozen=True)
class Call:
    """One attempt at one round, as the server calls it.

    Attributes:
        number: counted up over the whole federation, attempts included.
        place: in the program.
        attempt: from 1.
        left_out: names of clients of the cohort that are not asked, ascending.
        key: fingerprint of the encryption key in force, zeros without one.
    """

    number: int
    place: Place
    attempt: int = 1
    left_out: tuple[str, ...] = ()
    key: bytes = NO_KEY

    def document(self) -> dict[str, Any]:
        """The call as JSON values."""
        key, place = self.key.hex(), shown(self.place)
        left_out = list(self.left_out)
        facts = {"number": self.number, "attempt": self.attempt, "left_out": left_out}
        return facts | {"place": place, "key": key}

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Call:
        """The call that `document` wrote, checked. Raises RefusedError: `malformed`."""
        found = fields(value, "call", _CALL)
        names = found["left_out"]
        if not all(isinstance(name, str) for name in names) or names != sorted(set(names)):
            raise malformed("call", "left_out are names, ascending")
        place, key = read_place(found["place"]), from_hex(found["key"], "key", 32)
        if not 0 <= found["number"] < 1 << 32 or not 1 <= found["attempt"] <= ATTEMPTS:
            raise malformed("call", "a number is out of range")
        return cls(found["number"], place, found["attempt"], tuple(names), key)


def cohort_names(plan: Plan, form: SumForm) -> tuple[str, ...]:
    """Names of the clients that a round asks, in the order of their places."""
    return tuple(plan.clients[client] for client in form.cohort)


def round_plans(plan: Plan, roster: Roster, form: SumForm, call: Call) -> tuple[RoundPlan, ...]:
    """The plan of a round's sum; one for each group where clients are summed in groups. Raises
    RoundRefusedError: `too-few` clients are left of the cohort, or of one of its groups;
    RefusedError: `malformed`: somebody is left out who was not asked.
    """
    cohort = cohort_names(plan, form)
    if not set(call.left_out) <= set(cohort):
        raise malformed("call", "left_out are clients of the cohort")
    groups = [cohort]
    if form.opening.group_size is not None:
        numbers = {str(client): plan.clients[client] for client in form.cohort}
        drawn = draw_groups(list(numbers), form.opening.group_size, form.opening.group_seed)
        groups = [tuple(numbers[number] for number in group) for group in drawn]
    return tuple(
        _round_plan(plan, roster, form, call, group, place) for place, group in enumerate(groups)
    )


def _round_plan(
    plan: Plan, roster: Roster, form: SumForm, call: Call, group: tuple[str, ...], place: int
) -> RoundPlan:
    opening, asked = form.opening, tuple(sorted(set(group) - set(call.left_out)))
    open_fewest = min(opening.fewest, len(group))
    try:
        if not asked:  # which a plan of a sum takes for everybody
            raise SecureSumError("nobody", "cohort", 0, "wait for clients")
        rules = plan.rules(len(group))
        return RoundPlan(
            plan.protection,
            roster,
            call.number,
            form.shape,
            plan.server,
            cohort=asked,
            key_holder=plan.key_holder,
            authority=plan.authority,
            key_fingerprint=call.key,
            parameters=plan.parameters,
            fewest=max(opening.fewest, rules.survivors) if rules else open_fewest,
            minimum=opening.minimum,
            count_unit=opening.count_unit,
            threshold=rules.threshold if rules else None,
            degree=rules.degree if rules else None,
            colluders=rules.colluders if rules else None,
            bound=opening.bound,
            head_bound=opening.head_bound,
            margin=opening.margin,
            whole=opening.whole,
            question=_named(b"question", plan, [shown(call.place)]) if rules else b"",
            context=_named(b"call", plan, [call.document(), place]),
        )
    except (ConfigError, SecureSumError) as error:
        problem = f"no round with those who are left: {error.problem}"
        remedy = "wait for more of the cohort, or begin another federation"
        raise RoundRefusedError(
            RoundReason.TOO_FEW, problem, error.field, len(asked), remedy
        ) from None


def _named(what: bytes, plan: Plan, facts: list[Any]) -> bytes:
    """32 bytes that name a part of this federation.

    The question is the same in every attempt, so that a client helps to open one sum of its answers
    at a place; in the open, where each is read anyway, there is none.
    """
    return hashlib.sha256(b"secure-fl " + what + b"|" + plan.digest + canonical(facts)).digest()
