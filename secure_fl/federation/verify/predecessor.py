"""A record whose plan goes on from another, against the record of that one.

Guarantee: where nothing is found and the record before lies beside, that one ended where this one
begins: under the plan, at the place, with the state and after the very line that the signed plan
names.
Assumes: as `check`.
Not covered: a record before that is not there; then the signed plan alone says what it was.
"""

from __future__ import annotations

from pathlib import Path

from secure_fl.errors import SecureFLError
from secure_fl.federation.plan import Plan
from secure_fl.federation.transcript.chain import Line, Transcript
from secure_fl.federation.transcript.entries import EndEntry, PlanEntry, StateEntry
from secure_fl.federation.verify.folder import ReadFolder
from secure_fl.federation.verify.rounds import DONE, FILE
from secure_fl.files import is_file

SHORT = 16
"""Hex digits of a plan's digest that name its folder."""


def check_before(folder: ReadFolder, plan: Plan, *, party: bool) -> None:
    """Hold the record before against the signed plan, where the plan follows one and it lies
    beside this one.

    Args:
        folder: of this record; takes the findings.
        party: whether it is one party's, which may have been away at the end.
    """
    follows = plan.follows
    if follows is None:
        return
    before = _record_before(folder.folder, follows.plan, party=party)
    if before is None:
        told = f"plan {follows.plan.hex()[:SHORT]}, whose record is not beside this one"
        folder.checked.append(("goes on from", told))
        return
    try:
        lines = list(Transcript.open(before / FILE).lines())
    except SecureFLError as error:
        folder.found(FILE, "plan.follows", f"the record before: {error.problem}")
        return
    if not party or follows.head in {line.head for line in lines}:
        for problem in _differences(lines, plan):
            folder.found(FILE, "plan.follows", problem)
    at = f"round {follows.place.round} of step {follows.place.step + 1}"
    told = f"plan {follows.plan.hex()[:SHORT]}, whose record beside ends at {at}"
    folder.checked.append(("goes on from", told))


def _record_before(folder: Path, plan: bytes, *, party: bool) -> Path | None:
    """Where the record of the plan of a digest lies, beside this one; None where it does not. The
    name of a party, whose record it is, is in between.
    """
    place = folder.resolve()
    above, name = (place.parent.parent, place.name) if party else (place.parent, "")
    found = above / plan.hex()[:SHORT] / name
    return found if is_file(found / FILE) else None


def _differences(lines: list[Line], plan: Plan) -> list[str]:
    """What the record before says otherwise than the signed plan."""
    follows, entries = plan.follows, [line.entry for line in lines]
    assert follows is not None
    plans = [entry.digest for entry in entries if isinstance(entry, PlanEntry)]
    states = [(entry.place, entry.digest) for entry in entries if isinstance(entry, StateEntry)]
    place = (follows.place.step, follows.place.round)
    last = entries[-1] if entries else None
    rules = [
        (plans[-1:] == [follows.plan.hex()], "the record before is of another plan"),
        (states[-1:] == [(place, plan.start.hex())], "the record before came to another state"),
        (isinstance(last, EndEntry) and last.reason == DONE, "the record before has no such end"),
        (bool(lines) and lines[-1].head == follows.head, "the record before has another last line"),
    ]
    return [problem for holds, problem in rules if not holds]
