"""One planted fault against its check: its small run as it is, or broken on purpose."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.cases import Trial
from secure_fl.audit.suite.catalogue import check_addresses, check_at
from secure_fl.audit.suite.trying import not_tried, said_of, tried
from secure_fl.errors import AuditError
from secure_fl.run import Federation


@dataclass
class Planting:
    """A fault's small run and the check that must see the fault, at one seed after the other.

    Nothing is shared between two tries but, without the fault, what the run's settings make: its
    clients, examples and models, as in an audit. With the fault all is made anew within it.

    Attributes:
        fault: what is planted.
        check: that must call it broken.
    """

    fault: Fault
    check: Check
    _honest: Subject | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, fault: Fault, addresses: Sequence[str] | None = None) -> Planting:
        """With the check of the name that the fault gives.

        Args:
            addresses: of the checks that there are; the catalogue's by default.

        Raises:
            AuditError: there is none.
        """
        for check in map(check_at, check_addresses() if addresses is None else addresses):
            if check.name == fault.check:
                return cls(fault, check)
        raise AuditError("no check has this name", "fault.check", fault.check, "register it")

    def trial(self, seed: int, *, planted: bool) -> Trial:
        """What is kept of `tried`."""
        began = time.process_time()
        outcome = self.tried(seed, planted=planted)
        return Trial.of(seed, outcome, time.process_time() - began)

    def tried(self, seed: int, *, planted: bool) -> Outcome:
        """What the check says of the run, with the fault in it or without. A fault that outlives
        its context would stay: run it in a process that does nothing else.
        """
        plant = self.fault.plant if planted else nullcontext
        try:
            with plant(), self._subject(planted) as subject:
                if why := self.check.refused(subject):
                    return not_tried(self.check, f"does not apply: {why}")
                return tried(self.check, subject, Depth.MINUTES, seed, lambda _: None)
        except Exception as error:
            return not_tried(self.check, said_of(error))

    @contextmanager
    def _subject(self, planted: bool) -> Iterator[Subject]:
        """The fault's configuration; as a run that has ended, in a folder of its own, where the
        check needs one.
        """
        config = self.fault.config()
        if not self.fault.finished:
            if planted:
                yield Subject(config)
                return
            self._honest = self._honest or Subject(config)
            yield self._honest
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "run")
            with patch.dict(os.environ, {"SECURE_FL_STATE": str(Path(name, "state"))}):
                Federation(config).run(folder, progress=False)
                yield Subject(config, folder)
