"""What an audit will do, before it does it: which checks apply, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_fl.audit.check import Check, Depth
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import check_addresses, check_at
from secure_fl.audit.suite.document import Refused
from secure_fl.audit.suite.trying import said_of
from secure_fl.errors import AuditError

MOST_SEED = (1 << 32) - 1
QUICK_SECONDS, QUICK_CORES = 600.0, 2
"""What a whole audit of depth `minutes` may take, with two checks at a time on two cores."""

_OF_A_RECORD = ("record", "account")
"""Checks that need a party's record and nothing else."""
_ALONE = (
    "it needs all clients' examples, and one party's folder has none: audit the plan's settings "
    "with stand-in data"
)


@dataclass(frozen=True)
class Planned:
    """A check that applies.

    Attributes:
        address: where it is, as `catalogue.check_at` takes it.
        seconds: that it will take on one core, by its own estimate.
        problem: why nobody can say whether it applies; empty where all is well. It is not run, and
            is no pass.
    """

    address: str
    check: Check
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """What an audit will do.

    Attributes:
        applying: all checks that apply, in the catalogue's order.
        refused: those that do not.
        only: names of those that are asked for; all that apply when empty.
    """

    applying: tuple[Planned, ...]
    refused: tuple[Refused, ...]
    only: tuple[str, ...]

    @property
    def chosen(self) -> tuple[Planned, ...]:
        """Checks to be run."""
        return tuple(each for each in self.applying if self._wanted(each))

    @property
    def others(self) -> tuple[Planned, ...]:
        """Checks that apply and are not asked for."""
        return tuple(each for each in self.applying if not self._wanted(each))

    def _wanted(self, planned: Planned) -> bool:
        return not self.only or planned.check.name in self.only

    def seconds(self, jobs: int) -> float:
        """That it will take, so many checks at a time."""
        times = [planned.seconds for planned in self.chosen]
        return max([sum(times) / jobs, *times], default=0.0)

    @property
    def is_quick(self) -> bool:
        """Whether it fits into what `minutes` promises."""
        return self.seconds(QUICK_CORES) <= QUICK_SECONDS


def plan_audit(
    subject: Subject,
    depth: Depth,
    only: Sequence[str] = (),
    addresses: Sequence[str] | None = None,
) -> Plan:
    """Choose the checks that apply to a subject, and ask each how long it will take.

    Args:
        only: names of checks; all that apply when empty.
        addresses: of the checks to choose from; the catalogue's by default.

    Raises:
        AuditError: `only` names no check.
    """
    where = check_addresses() if addresses is None else addresses
    checks = [(address, check_at(address)) for address in where]
    known(only, [check.name for _, check in checks], "--only")
    found = [_planned(address, check, subject, depth) for address, check in checks]
    applying = tuple(each for each in found if isinstance(each, Planned))
    refused = tuple(each for each in found if isinstance(each, Refused))
    return Plan(applying, refused, tuple(only))


def check_seed(seed: int) -> None:
    """Refuse what generators do not take. Raises AuditError: not from 0 to 2³² − 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise AuditError("is no seed", "--seed", seed, f"a whole number from 0 to {MOST_SEED}")


def known(only: Sequence[str], names: Sequence[str], field: str) -> None:
    """Refuse names that are none. Raises AuditError: one of `only` is not among `names`."""
    for name in only:
        if name not in names:
            remedy = f"one of {', '.join(sorted(set(names)))}" if names else "there are none"
            raise AuditError("no such name", field, name, remedy)


def _planned(address: str, check: Check, subject: Subject, depth: Depth) -> Planned | Refused:
    alone = subject.party and check.name not in _OF_A_RECORD
    try:
        if why := check.refused(subject):
            return Refused(check.name, check.tried, why)
        if not alone:
            return Planned(address, check, check.estimate(subject, depth))
    except Exception as error:
        if not alone:
            return Planned(address, check, 0.0, said_of(error))
    return Planned(address, check, 0.0, _ALONE)
