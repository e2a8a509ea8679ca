"""Whom a server waits for, in which phase, since when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from secure_fl.federation.parties.server import FederationServer
from secure_fl.records import Record


@dataclass(frozen=True)
class Wait(Record):
    """One phase of an attempt, or what comes before the first.

    Attributes:
        names: of the parties that have not answered.
        since: when the first wait for it began in this process, in seconds since 1970.
    """

    names: tuple[str, ...]
    since: float


class Waits:
    """Keeps up with a server.

    Args:
        wall: seconds since 1970.

    Attributes:
        now: by phase; nothing where nobody is waited for.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall, self._number = wall, -1
        self.now: dict[str, Wait] = {}

    def look(self, server: FederationServer) -> bool:
        """Ask it; whether something is not as before."""
        before = self.now if server.number == self._number else {}
        self._number = server.number
        found = {phase: tuple(sorted(names)) for phase, names in server.waits.items() if names}
        fresh = {
            phase: Wait(names, before[phase].since if phase in before else self._wall())
            for phase, names in found.items()
        }
        changed, self.now = fresh != self.now, fresh
        return changed
