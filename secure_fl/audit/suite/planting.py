"""One planted fault against its check: the same small run honest, then broken on purpose."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import check_addresses, check_at
from secure_fl.audit.suite.trying import not_tried, said_of, tried
from secure_fl.errors import AuditError
from secure_fl.records import Record


@dataclass(frozen=True)
class Trial(Record):
    """What one check said at one seed.

    Attributes:
        honest: of the run as it is: `held`, if all is well.
        planted: of the run with the fault in it: `broken`.
    """

    honest: Outcome
    planted: Outcome


def try_fault(fault: Fault, seed: int, addresses: Sequence[str] | None = None) -> Trial:
    """Audit a fault's small run without it, then with it.

    A fault does not outlive its context: from the second seed on, honest runs come after it, and a
    trace that it left would show as a false alarm. Run it in a process that does nothing else.

    Args:
        addresses: of the checks that there are; the catalogue's by default.

    Raises:
        AuditError: no check has the name that the fault gives.
    """
    there = map(check_at, check_addresses() if addresses is None else addresses)
    found = [check for check in there if check.name == fault.check]
    if not found:
        raise AuditError("no check has this name", "fault.check", fault.check, "register it")
    return Trial(_tried(found[0], fault, seed, planted=False), _tried(found[0], fault, seed))


def _tried(check: Check, fault: Fault, seed: int, *, planted: bool = True) -> Outcome:
    plant = fault.plant if planted else nullcontext
    try:
        with plant(), _subject(fault) as subject:
            if why := check.refused(subject):
                return not_tried(check, f"does not apply: {why}")
            return tried(check, subject, Depth.MINUTES, seed, lambda _: None)
    except Exception as error:
        return not_tried(check, said_of(error))


@contextmanager
def _subject(fault: Fault) -> Iterator[Subject]:
    """The fault's configuration; as a run that has ended, in a folder of its own, where the check
    needs one.
    """
    config = fault.config()
    if not fault.finished:
        yield Subject(config)
        return
    from secure_fl.run import Federation

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        with patch.dict(os.environ, {"SECURE_FL_STATE": str(Path(name, "state"))}):
            Federation(config).run(folder, progress=False)
            yield Subject(config, folder)
