"""How long a message of a federation may be: what either end of a session takes room for."""

from __future__ import annotations

from collections.abc import Iterator

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.roster import Roster
from secure_fl.federation.parties.calling import Call, round_plans
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.steps.program import StepProgram
from secure_fl.secure_sum.sizes import most_bytes

_ROUNDED = 1 << 20
_IN_SUMS = tuple(phase for phase in Phase if phase < Phase.HELLO and phase != Phase.KEYS)


def largest_of(plan: Plan, signed: bytes, roster: Roster, program: StepProgram | None) -> int:
    """Bytes that no message of a federation is longer than, rounded up to MiB.

    Args:
        signed: the plan, as the coordinator signed it.
        roster: on which it stands.
        program: what the plan asks for; without it, bytes of what is said before any sum.
    """
    around = [plan.most(phase) for phase in Phase if phase not in _IN_SUMS]
    sums = () if program is None else _of_sums(plan, roster, program)
    most = max(*around, len(signed), *sums)
    return -(-most // _ROUNDED) * _ROUNDED


def _of_sums(plan: Plan, roster: Roster, program: StepProgram) -> Iterator[int]:
    """The longest message of the sums of each step."""
    for step in range(len(program.steps)):
        place = Place(step, 0)
        for each in round_plans(plan, roster, program.form(place), Call(0, place)):
            for phase in _IN_SUMS:
                yield from (most_bytes(each, phase, to_client=way) for way in (False, True))
