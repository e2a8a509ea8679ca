"""A log line for everything that an observer is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.transcript.entries import (
    Entry,
    JoinedEntry,
    KeysEntry,
    PlanEntry,
    SumEntry,
)
from secure_fl.operations.expiry import expiries
from secure_fl.operations.logs import say
from secure_fl.operations.view import Course, Observer, View

_SOON, _DAY = 30, 86400.0


class Lines(Observer):
    """Logs what happens; single messages at level `debug`; every day which certificate ends soon.

    Args:
        tls: of this end.
        clock: seconds that only grow.
    """

    def __init__(
        self, tls: TlsFiles | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tls, self._clock, self._looked = tls, clock, float("-inf")

    def turned(self, view: View) -> None:
        if self._clock() - self._looked < _DAY:
            return
        self._looked = self._clock()
        for kind, days in expiries(self._tls).items():
            if days < _SOON:
                say("certificate-ends", logging.WARNING, kind=kind, days=int(days))

    def peer(self, view: View, name: str, reason: str) -> None:
        if view.peers[name].there:
            say("connected", peer=name, count=len(view.there))
        else:
            say("lost", logging.WARNING, peer=name, reason=reason, count=len(view.there))

    def message(
        self, view: View, direction: str, phase: str, size: int, seconds: float | None
    ) -> None:
        took = seconds or 0.0
        say("message", logging.DEBUG, direction=direction, phase=phase, bytes=size, seconds=took)

    def refused(self, view: View, facts: Mapping[str, object], reason: str, count: int) -> None:
        say("refused", logging.WARNING, reason=reason, count=count, **facts)

    def began(self, view: View, course: Course) -> None:
        say("round-began", number=course.number, attempt=course.attempt, **_place(course))

    def ended(self, view: View, course: Course) -> None:
        for phase, leg in course.legs.items():
            size = leg.bytes.total()
            say("phase", number=course.number, phase=phase, seconds=leg.seconds, bytes=size)
        level = logging.INFO if course.outcome == "done" else logging.WARNING
        told = {"number": course.number, "attempt": course.attempt, **_place(course)}
        say("round-ended", level, outcome=course.outcome, seconds=course.seconds, **told)

    def stage(self, view: View) -> None:
        if view.stage:
            say("stage", stage=view.stage, number=view.number, members=len(view.members))
        if view.over and view.why:
            say("over", logging.ERROR, outcome="failed", reason=view.why)
        elif view.over:
            say("over", outcome="done")

    def entry(self, view: View, entry: Entry) -> None:
        match entry:
            case PlanEntry():
                say("plan", digest=entry.digest, federation=entry.federation)
            case JoinedEntry():
                say("joined", party=entry.client)
            case KeysEntry():
                say("keys", digest=entry.fingerprint, party=entry.maker)
            case SumEntry():
                missed, survivors = sorted(entry.missed), len(entry.survivors)
                say("sum-opened", number=entry.round, survivors=survivors, missed=missed)
            case _:
                pass


def _place(course: Course) -> dict[str, object]:
    return {} if course.place is None else {"place": [course.place.step, course.place.round]}
