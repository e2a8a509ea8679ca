"""Checks in processes of their own, several at a time: what one leaves behind, or a planted fault,
reaches no other; one that is killed takes nothing but its own outcome along.

**Guarantee**: every job is answered once; a process that dies answers with nothing, and a new one
goes on with the rest. None outlives who started it. A fault is planted in a fork of its process,
which has run nothing and ends with that fault.
**Assumes**: checks and faults are module attributes, which a process imports by their addresses.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from secure_fl.audit.check import Depth
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import check_at, faults_at
from secure_fl.audit.suite.document import encoded
from secure_fl.audit.suite.planting import Planting
from secure_fl.audit.suite.trying import tried
from secure_fl.engines.pipes import Ask, Remote, end_with_starter, wait_for
from secure_fl.errors import AuditError
from secure_fl.federation.parties.party import Message, Party

_MAKE = "secure_fl.audit.suite.worker:make"
_NAME = "checks"


class Answer(NamedTuple):
    """To one job.

    Attributes:
        number: the job's, in the order in which they were given.
        data: a record as JSON, nothing of a fault, whose trials were told; None where the process
            has died.
        status: how that ended: its exit status, or minus a signal.
    """

    number: int
    data: bytes | None
    status: int | None = None


class Tester(Party):
    """The party of a process: each message is a job, and is answered by a record.

    A job is either a check (`path` of a run or a configuration, `depth`, `seed`), or a fault (its
    `number`, whether it is `planted`, `seeds`, addresses of `checks`), at an `address`. Of a check
    its share of work done is told, and of a fault every trial.
    """

    name, over, due = _NAME, False, None

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._subjects: dict[str, Subject] = {}

    def receive(self, data: bytes | memoryview) -> list[Message]:
        job = json.loads(bytes(data))
        done = self._fault(job) if "seeds" in job else self._check(job)
        return [Message("audit", done)]

    def tick(self, now: float) -> list[Message]:
        return []

    def _check(self, job: Mapping[str, Any]) -> bytes:
        path = job["path"]
        if path not in self._subjects:
            self._subjects[path] = Subject.of(Path(path))
        check, depth = check_at(job["address"]), Depth(job["depth"])
        return encoded(tried(check, self._subjects[path], depth, job["seed"], self._progress))

    def _fault(self, job: Mapping[str, Any]) -> bytes:
        """In a fork of this process, which has the modules and has run nothing; ends as it ends."""
        planting = Planting.of(faults_at(job["address"])[job["number"]], job["checks"])
        child = os.fork()
        if not child:
            self._in_fork(planting, job)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            os.kill(os.getpid(), -code)
        if code:
            os._exit(code)
        return b""

    def _in_fork(self, planting: Planting, job: Mapping[str, Any]) -> NoReturn:
        status = 1
        try:
            threading.Thread(target=end_with_starter, daemon=True).start()
            for seed in job["seeds"]:
                self._ask(encoded(planting.trial(seed, planted=job["planted"])))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _progress(self, share: float) -> None:
        self._ask(f"{share:.4f}".encode())


def make(_: bytes, ask: Ask) -> Sequence[Party]:
    """The party of a process."""
    return [Tester(ask)]


class _Desk:
    """A process, the number of the job that it is at, and whether it has had one."""

    def __init__(self, told: Callable[[int, bytes], None]) -> None:
        self.number: int | None = None
        self.used = False
        self._told = told
        self.remote = Remote(_MAKE, b"", self._asked)

    def give(self, number: int, job: Mapping[str, object]) -> None:
        """The next job."""
        self.number, self.used = number, True
        self.remote.give(_NAME, json.dumps(job).encode())

    def collect(self) -> list[Answer]:
        """What it has to say, once its process can be read from."""
        found = [bytes(message.data) for _, message in self.remote.collect()]
        number, alive = self.number, self.remote.alive
        if not alive and not self.used:
            remedy = "read what it wrote to standard error; or try one check at a time (--jobs 1)"
            raise AuditError("did not start", "process for checks", self.remote.status, remedy)
        if number is None or (alive and not found):
            return []
        self.number = None
        return [Answer(number, found[0] if found else None, self.remote.status)]

    def _asked(self, data: memoryview) -> bytes:
        if self.number is not None:
            self._told(self.number, bytes(data))
        return b""


def answered(
    jobs: Sequence[Mapping[str, object]],
    workers: int,
    told: Callable[[int, bytes], None],
    began: Callable[[int], None],
) -> Iterator[Answer]:
    """Answers to jobs as they come, so many at a time.

    Args:
        told: is told a job's number and what its process says of it while it works.
        began: is told a job's number when it begins.

    Raises:
        AuditError: processes do not start.
    """
    waiting = deque(enumerate(jobs))
    desks = [_Desk(told) for _ in range(min(workers, len(jobs)))]
    try:
        while desks:
            ready = wait_for([desk.remote for desk in desks])
            desk = next(each for each in desks if each.remote is ready)
            yield from desk.collect()
            if ready.alive and ready.busy:
                continue
            if ready.alive and waiting:
                number, job = waiting.popleft()
                began(number)
                desk.give(number, job)
                continue
            desks.remove(desk)
            ready.close()
            if waiting:
                desks.append(_Desk(told))
    finally:
        for desk in desks:
            desk.remote.kill()
            desk.remote.close()
